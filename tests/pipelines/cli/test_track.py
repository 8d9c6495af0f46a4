"""What track prints, with a file for the frames and without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.cli import main
from tests.support.city_store import CityStore


def test_frames_that_lie_in_a_file_are_not_printed_unless_a_format_is_asked_for(
    city_store: CityStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames, out = [str(path) for path in city_store.queries[:2]], str(tmp_path / "drive.json")
    asked = ["track", *frames, "--store", city_store.uri, "--candidates", "5", "--quiet"]
    assert main([*asked, "--json", "--out", out]) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads(Path(out).read_text())
    assert [frame["image"] for frame in written["frames"]] == frames
    assert printed == {name: value for name, value in written.items() if name != "frames"} | {"out": out}
    assert main([*asked, "--out", out]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [lines[0].split(":")[0], *lines[1:]] == ["2 frames", f"track: {out}"]
    assert main([*asked, "--out", out, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(Path(out).read_text())
    assert main([*asked, "--json"]) == 0
    assert [frame["image"] for frame in json.loads(capsys.readouterr().out)["frames"]] == frames


@pytest.mark.parametrize("verb", ["query {p}", "track {p}", "locate {f}", "evaluate {f}", "calibrate {f}"])
def test_options_of_matching_need_something_to_match(
    city_store: CityStore, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = verb.format(p=city_store.queries[0], f=city_store.queries[0].parent).split()
    assert main([*words, "--store", city_store.uri, "--no-rerank", "--score", "count"]) == 2
    assert "nothing to match" in capsys.readouterr().err
