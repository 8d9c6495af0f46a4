"""Counts of an index run, and the lists of what was rejected or dropped."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.indexing.columns import DECODED_SCHEMA
from pipelines.indexing.known import mark_known
from pipelines.indexing.tally import Tally
from pipelines.sources import LISTING_SCHEMA, Note, join_notes
from storage.objects.location import objects_of, open_file, open_location

SCHEMA = pa.schema([*DECODED_SCHEMA, ("shard", pa.string())])


def make_rows(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([{"unchanged": False, "uri": "/x.jpg", **row} for row in rows], schema=SCHEMA)


def read_list(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_tally_counts_and_lists_what_was_dropped(tmp_path: Path) -> None:
    tally = Tally(total=4, progress=lambda *_: None)
    notes = join_notes([Note("bad_time", "captured_at =1+1 is not a time"), Note("bad_heading", "x")])
    tally.add(
        make_rows(
            {"image_id": "b", "shard": "s", "lat": 1.0, "lon": 2.0, "notes": notes},
            {"image_id": "=a", "shard": "s", "notes": join_notes([Note("bad_time", "y")])},
            {"image_id": "c", "rejected": "corrupt", "message": "m", "notes": notes},
            {"image_id": "d", "shard": "s", "utm_e": 1.0, "utm_n": 2.0},
        )
    )
    tally.add_notes([Note("unused_column", "column bearing is not read")], uri="/l.csv")
    assert (tally.extracted, tally.rejected, tally.without_position) == (3, 1, 1)
    assert tally.notes_by_reason == {"bad_time": 2, "bad_heading": 1, "unused_column": 1}
    tally.write_notes(tmp_path / "notes.csv")
    listed = read_list(tmp_path / "notes.csv")
    assert listed[0] == ["image_id", "uri", "reason", "message"]
    assert [row[:1] + row[2:3] for row in listed[1:]] == [
        ["", "unused_column"],
        ["'=a", "bad_time"],
        ["b", "bad_time"],
        ["b", "bad_heading"],
    ]
    Tally(total=0, progress=lambda *_: None).write_notes(tmp_path / "notes.csv")
    assert not (tmp_path / "notes.csv").exists()


def test_tally_lists_a_bounded_number_of_notes_and_counts_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.indexing.tally.MAX_NOTES", 2)
    tally = Tally(total=5, progress=lambda *_: None)
    tally.add_notes([Note("bad_time", str(number)) for number in range(5)], uri="/x.jpg", image_id="x")
    tally.add_notes([Note("bad_heading", "370")], uri="/x.jpg", image_id="x")
    assert tally.notes_by_reason == {"bad_time": 5, "bad_heading": 1}
    tally.write_notes(tmp_path / "notes.csv")
    assert [row[2:] for row in read_list(tmp_path / "notes.csv")[1:]] == [
        ["bad_time", "and 3 more"],
        ["bad_time", "0"],
        ["bad_time", "1"],
        ["bad_heading", "370"],
    ]


def test_unchanged_images_may_have_their_position_in_the_store() -> None:
    tally = Tally(total=2, progress=lambda *_: None)
    tally.add(
        make_rows(
            {"image_id": "a", "unchanged": True, "stored_position": True},
            {"image_id": "b", "unchanged": True, "stored_position": False},
        )
    )
    assert tally.without_position == 1


def test_known_rows_say_whether_the_store_has_a_position() -> None:
    listing = pa.Table.from_pylist([{"image_id": name, "uri": name} for name in "abc"], schema=LISTING_SCHEMA)
    stored = pa.schema(
        [*(field for field in LISTING_SCHEMA if field.name != "rejected"), ("sha256", pa.string())]
    )
    known = pa.Table.from_pylist(
        [
            {"image_id": "a", "uri": "a", "sha256": "0", "lat": 1.0, "lon": 2.0},
            {"image_id": "b", "sha256": "1"},
        ],
        schema=stored,
    )
    assert mark_known(listing, known)["stored_position"].to_pylist() == [True, False, False]


def test_rejected_rows_are_listed_whole_and_in_order_however_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.indexing.rejected_rows.HELD_ROWS", 7)
    monkeypatch.setattr("pipelines.indexing.tally.PART_CHARACTERS", 50)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    tally = Tally(total=60, progress=lambda *_: None)
    for start in range(0, 60, 3):
        ids = [f"i{at * 37 % 60:02}" for at in range(start, start + 3)]
        tally.add(make_rows(*({"image_id": name, "rejected": "corrupt", "message": "m"} for name in ids)))
    assert (tally.rejected, tally.reasons["corrupt"]) == (60, 60)
    for _ in range(2):
        tally.write_rejections(tmp_path / "rejected.csv")
        listed = read_list(tmp_path / "rejected.csv")
        assert [row[0] for row in listed[1:]] == [f"i{at:02}" for at in range(60)]
        assert listed[1] == ["i00", "/x.jpg", "corrupt", "m"]
    assert list((tmp_path / "temporary").iterdir())
    del tally
    assert not list((tmp_path / "temporary").iterdir())


def test_lists_are_written_into_a_bucket(bucket_uri: str) -> None:
    tally = Tally(total=1, progress=lambda *_: None)
    notes = join_notes([Note("bad_time", "x")])
    tally.add(make_rows({"image_id": "c", "rejected": "corrupt", "message": "m", "notes": notes}))
    address, _, options = bucket_uri.partition("?")
    tally.write_rejections(open_file(f"{address}/elsewhere/list.csv?{options}"))  # as --rejected
    tally.write_notes(open_location(bucket_uri) / "notes.csv")  # beside the store
    objects = objects_of(open_location(bucket_uri))
    assert [each.name for each in objects.list()] == ["elsewhere/list.csv"]
    assert b"corrupt" in objects.get("elsewhere/list.csv", 1 << 16).data
    tally.add_notes([Note("unused_column", "column bearing is not read")], uri="/l.csv")
    tally.write_notes(open_location(bucket_uri) / "notes.csv")
    assert b"unused_column" in objects.get("notes.csv", 1 << 16).data
