"""Artifacts and cards: named by their digest, written once, never read through a link or without a limit."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

import pytest

from storage import artifacts
from storage.artifacts import digests_in, read_artifact, write_artifact
from storage.card_files import card_path, read_card, write_card
from storage.errors import CardMismatch, CorruptStore, InvalidBatch
from tests.support.store_samples import make_card

DATA = b"words and a projection" * 100
DIGEST = hashlib.sha256(DATA).hexdigest()
CARD = make_card().stored_as("int4", aggregation_sha256=DIGEST, descriptor_dim=512)


def test_an_artifact_is_read_back_by_its_digest(tmp_path: Path) -> None:
    assert write_artifact(tmp_path, DATA) == DIGEST
    assert read_artifact(tmp_path, DIGEST) == DATA
    assert digests_in(tmp_path / "artifacts") == [DIGEST]
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == [DIGEST]


def test_an_artifact_is_written_once_and_mended_when_damaged(tmp_path: Path) -> None:
    write_artifact(tmp_path, DATA)
    path = tmp_path / "artifacts" / DIGEST
    before = path.stat().st_ino
    write_artifact(tmp_path, DATA)
    assert path.stat().st_ino == before
    path.write_bytes(DATA[:-1])
    with pytest.raises(CorruptStore, match="damaged"):
        read_artifact(tmp_path, DIGEST)
    write_artifact(tmp_path, DATA)
    assert read_artifact(tmp_path, DIGEST) == DATA


def test_an_artifact_beyond_the_limit_is_neither_written_nor_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_artifact(tmp_path, DATA)
    monkeypatch.setattr(artifacts, "MAX_ARTIFACT_BYTES", len(DATA) - 1)
    with pytest.raises(InvalidBatch, match="too large"):
        write_artifact(tmp_path, DATA)
    with pytest.raises(CorruptStore, match="larger than"):
        read_artifact(tmp_path, DIGEST)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../secret",
        "/etc/passwd",
        DIGEST.upper(),
        DIGEST + "\n",
        "0" * 63,
        "\x00" * 64,
        7,
        None,
    ],
)
def test_a_name_that_is_no_digest_leads_nowhere(tmp_path: Path, name: object) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "artifacts").mkdir()
    with pytest.raises(CorruptStore, match="not a SHA-256"):
        read_artifact(tmp_path, name)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_only_regular_files_are_read_and_none_is_written_through(tmp_path: Path, kind: str) -> None:
    (tmp_path / "artifacts").mkdir()
    path = tmp_path / "artifacts" / DIGEST
    (tmp_path / "outside").write_bytes(DATA)
    {"link": lambda: path.symlink_to("../outside"), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[
        kind
    ]()
    with pytest.raises(CorruptStore):
        read_artifact(tmp_path, DIGEST)
    with pytest.raises(CorruptStore):
        write_artifact(tmp_path, DATA)
    assert (tmp_path / "outside").read_bytes() == DATA
    assert digests_in(tmp_path / "artifacts") == []


def test_a_missing_artifact_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CorruptStore, match="missing: restore it from a backup"):
        read_artifact(tmp_path, DIGEST)
    assert digests_in(tmp_path / "artifacts") == []


def test_a_card_is_read_back_by_its_digest(tmp_path: Path) -> None:
    digest = write_card(tmp_path, CARD)
    assert digest == CARD.sha256
    assert read_card(tmp_path, digest) == CARD
    assert card_path(tmp_path, digest).name == f"{digest}.json"
    assert digests_in(tmp_path / "cards", ".json") == [digest]


def test_a_card_of_a_newer_placeray_or_of_other_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()

    def written(text: str) -> str:
        digest = hashlib.sha256(text.encode()).hexdigest()
        card_path(tmp_path, digest).write_text(text)
        return digest

    newer = CARD.to_json().replace('"format_version"', '"a_new_field": 1, "format_version"')
    with pytest.raises(CardMismatch, match="newer placeray"):
        read_card(tmp_path, written(newer))
    with pytest.raises(CorruptStore, match="as placeray writes it"):
        read_card(tmp_path, written(CARD.to_json() + " "))
    digest = write_card(tmp_path, CARD)
    card_path(tmp_path, digest).write_text(dataclasses.replace(CARD, descriptor_dim=64).to_json())
    with pytest.raises(CorruptStore, match="damaged"):
        read_card(tmp_path, digest)
