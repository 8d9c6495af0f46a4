"""The rule: which Ray a command uses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.ray_session import RULE, InvalidRayAddress, cluster_address, starts_own_ray
from tests.support.pictures import write_photos

JOB = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, None),
        ({"RAY_ADDRESS": ""}, None),
        ({"RAY_ADDRESS": " "}, None),
        ({"RAY_ADDRESS": "local"}, None),
        ({"RAY_ADDRESS": "auto"}, "auto"),
        ({"RAY_ADDRESS": "head:6379"}, "head:6379"),
        ({"RAY_ADDRESS": "10.0.0.1:6379"}, "10.0.0.1:6379"),
        ({"RAY_ADDRESS": "[fd00::1]:6379"}, "[fd00::1]:6379"),
        ({"RAY_ADDRESS": "ray://head:10001"}, "ray://head:10001"),
        (JOB, "auto"),
        (JOB | {"RAY_ADDRESS": "10.0.0.1:6379"}, "10.0.0.1:6379"),
    ],
)
def test_cluster_is_joined_where_it_is_named(
    environment: dict[str, str], address: str | None, tmp_path: Path
) -> None:
    assert cluster_address(environment | {"RAY_TMPDIR": str(tmp_path)}) == address


def test_noted_cluster_changes_nothing_unless_auto_is_given(tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.9.9.9:6379")
    assert cluster_address({"RAY_TMPDIR": str(tmp_path)}) is None
    assert starts_own_ray({"TMPDIR": str(tmp_path)})
    assert cluster_address({"RAY_TMPDIR": str(tmp_path), "RAY_ADDRESS": "auto"}) == "auto"


def test_auto_does_not_follow_the_note_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "ray" / "ray_current_cluster"
    note.parent.mkdir()
    note.write_text("10.9.9.9:6379")
    if os.geteuid() == 0:
        os.chown(note, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: note.stat().st_uid + 1)
    with pytest.raises(InvalidRayAddress, match="another user"):
        cluster_address({"RAY_TMPDIR": str(tmp_path), "RAY_ADDRESS": "auto"})


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:8265",
        "HTTPS://u:secret@head",
        "head",
        "head:0",
        "head:99999",
        "tcp://head:1",
        "a b:6379",
    ],
)
def test_other_addresses_end_every_command_with_one_line(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "photos", 1)
    monkeypatch.setenv("RAY_ADDRESS", address)
    code = main(["index", str(tmp_path / "photos"), "--store", str(tmp_path / "store")])
    message = capsys.readouterr().err
    assert code == 2
    assert message.count("\n") == 1
    assert "HOST:PORT" in message
    assert "secret" not in message
    assert ("ray job submit" in message) == address.lower().startswith("http")
    assert not (tmp_path / "store").exists()


def test_finetune_and_serve_follow_the_rule_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    assert main(["finetune", str(tmp_path), "--out", str(tmp_path / "w.safetensors")]) == 2
    assert "RAY_ADDRESS" in capsys.readouterr().err
    assert main(["serve", "--store", str(tmp_path), "--log-file", "-"]) == 2
    assert "RAY_ADDRESS" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["disabled", "Disabled", "tokens", "off", "0"])
def test_private_ray_without_authentication_is_refused(
    mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "photos", 1)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    code = main(["index", str(tmp_path / "photos"), "--store", str(tmp_path / "store")])
    assert code == 2
    assert f"RAY_AUTH_MODE={mode}" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("verb", ["demo", "index", "evaluate", "finetune", "serve"])
def test_help_states_the_rule(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    assert RULE in " ".join(capsys.readouterr().out.split())
