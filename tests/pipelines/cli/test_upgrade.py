"""`placeray upgrade`: what it says and does, from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main
from tests.support.paths import GOLDEN


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any], str]:
    code = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, json.loads(printed.out) if printed.out else {}, printed.err


@pytest.mark.parametrize(
    ("name", "before", "added"),
    [
        ("store_v1_float16", 1, ["source", "tags", "code"]),
        ("store_v2_int4_pca64", 2, ["source", "tags", "code"]),
        ("store_v3_relearned", 3, []),
    ],
)
def test_upgrade_says_what_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, before: int, added: list[str]
) -> None:
    store = tmp_path / "store"
    shutil.copytree(GOLDEN / name, store)
    _, info, _ = call(capsys, "info", "--store", store, "--json")
    assert info["card"]["format_version"] == before
    code, report, _ = call(capsys, "upgrade", "--store", store, "--json")
    assert (code, report["format_before"], report["format"]) == (0, before, 3)
    assert (report["columns_added"], report["rows"]) == (added, 6)
    assert report["version"] == info["version"] + (2 if added else 0)
    code, again, _ = call(capsys, "upgrade", "--store", store, "--json")
    assert (code, again["columns_added"], again["version"]) == (0, [], report["version"])
    _, info, _ = call(capsys, "info", "--store", store, "--json")
    assert (info["card"]["format_version"], info["rows"]) == (3, 6)
    assert call(capsys, "verify", "--store", store, "--json")[0] == 0


def test_upgrade_refuses_what_is_no_store_and_what_is_newer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, "upgrade", "--store", tmp_path)[0] == 2
    shutil.copytree(GOLDEN / "store_v3_relearned", tmp_path / "s")
    card = tmp_path / "s" / "card.json"
    text = card.read_text()
    for changed in (
        text.replace('"format_version": 3', '"format_version": 4'),
        text.replace("{", '{"newer": 1,', 1),
    ):
        assert changed != text
        card.write_text(changed)
        for verb in ("upgrade", "info", "verify", "compact"):
            code, _, message = call(capsys, verb, "--store", tmp_path / "s")
            assert (code, message.count("\n")) == (5, 1)
            assert "upgrade placeray" in message
