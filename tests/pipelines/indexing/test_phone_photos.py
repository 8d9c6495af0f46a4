"""A folder as it comes off phones and cameras, row by row."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from models.images import heic as heic_module
from models.weights import load_card
from pipelines.indexing import index
from pipelines.indexing.decode import decode
from pipelines.sources import list_source, split_notes
from storage.store import Store
from tests.support.encoded_images import HEIC
from tests.support.phone_photos import Photo, expected_rows, phone_photos, write_phone_photos

FIELDS = ("width", "height", "lat", "lon", "heading_deg", "captured_at")


def shown(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return rows by id, with what `expected_rows` compares."""
    for row in rows:
        row["lat"], row["lon"] = (
            value if value is None else round(value, 5) for value in (row["lat"], row["lon"])
        )
    return {row["image_id"]: {name: row[name] for name in FIELDS} for row in rows}


def rejected(photos: list[Photo]) -> dict[str, str]:
    return {photo.name: photo.rejected for photo in photos if photo.rejected}


def noted(photos: list[Photo]) -> dict[str, tuple[str, ...]]:
    return {photo.name: photo.notes for photo in photos if photo.notes}


@pytest.mark.parametrize(
    "heic", [pytest.param(True, marks=pytest.mark.skipif(not HEIC, reason="no pillow-heif")), False]
)
def test_every_photo_gives_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heic: bool) -> None:
    if not heic:
        monkeypatch.setattr(heic_module, "_plugin", lambda: None)
    photos = write_phone_photos(tmp_path, heic=heic)
    listing = list_source(tmp_path)
    for name in ("stored_sha256", "stored_uri"):
        listing = listing.append_column(name, [[None] * len(listing)])
    listing = listing.append_column("amend", [[False] * len(listing)])
    rows = decode(listing, card=load_card("efficientnet-lite0").to_json()).to_pylist()
    assert len(rows) == len(photos)
    assert shown([row for row in rows if not row["rejected"]]) == expected_rows(photos)
    assert {row["image_id"]: row["rejected"] for row in rows if row["rejected"]} == rejected(photos)
    dropped = {row["image_id"]: tuple(note.reason for note in split_notes(row["notes"])) for row in rows}
    assert {name: notes for name, notes in dropped.items() if notes} == noted(photos)
    for row in rows:
        if row["image_id"].endswith(".HEIC") and not heic:
            assert 'pip install "placeray[heic]"' in row["message"]


def test_the_folder_has_the_habits_of_ten_makers_and_more() -> None:
    makes = {
        photo.data[photo.data.index(tag) :][:6]
        for photo in phone_photos()
        for tag in MAKES
        if tag in photo.data
    }
    assert len(makes) >= 10
    assert sum(b"ftypmp42" in photo.data for photo in phone_photos()) >= 3


MAKES = (
    *(b"Apple", b"samsung", b"Google", b"LG Ele", b"Xiaomi", b"HUAWEI", b"OPPO", b"Canon", b"SONY"),
    *(b"NIKON", b"GoPro", b"DJI", b"EASTMAN", b"FUJIFILM"),
)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_the_folder_is_indexed_row_by_row(tmp_path: Path) -> None:
    photos = write_phone_photos(tmp_path / "phone")
    report = index(tmp_path / "phone", tmp_path / "store")
    stored = Store.open(tmp_path / "store")
    assert shown(stored.metadata().to_pylist()) == expected_rows(photos)
    assert (report.accepted, report.rejected) == (len(expected_rows(photos)), len(rejected(photos)))
    assert report.without_position == sum(row["lat"] is None for row in expected_rows(photos).values())
    with open(tmp_path / "store" / "rejected.csv", newline="", encoding="utf-8") as file:
        assert {row["image_id"]: row["reason"] for row in csv.DictReader(file)} == rejected(photos)
    with open(tmp_path / "store" / "notes.csv", newline="", encoding="utf-8") as file:
        assert {row["image_id"]: (row["reason"],) for row in csv.DictReader(file)} == noted(photos)
    assert {row["source"] for row in stored.metadata().to_pylist()} == {str(tmp_path / "phone")}
    assert stored.verify().ok
