"""Sources: what is listed, under which id, and what is refused."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources import (
    LISTING_SCHEMA,
    SourceError,
    list_source,
    open_dataset,
    parse_standard_name,
)

PITTS_NAME = "@0584286.37@4477236.93@17@T@040.44229@-079.99@003313@00@90.5@12@0@3@201311@night@.jpg"


def touch(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def rows(source: Path, **options: Any) -> list[dict[str, Any]]:
    table = list_source(source, **options)
    assert table.schema == LISTING_SCHEMA
    listed: list[dict[str, Any]] = table.to_pylist()
    return listed


def write_csv(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_standard_name_full_gives_every_field() -> None:
    assert parse_standard_name(PITTS_NAME) == {
        "utm_e": 584286.37,
        "utm_n": 4477236.93,
        "utm_zone": "17T",
        "lat": 40.44229,
        "lon": -79.99,
        "heading_deg": 90.5,
        "captured_at": datetime(2013, 11, 1, tzinfo=UTC),
    }


def test_standard_name_short_gives_position_only() -> None:
    assert parse_standard_name("@500010.00@4000000.00@.jpg") == {"utm_e": 500010.0, "utm_n": 4000000.0}


@pytest.mark.parametrize("name", ["a.jpg", "@x@y@.jpg", "a@1@2@.jpg", "@1@.jpg", "@nan@2@.jpg", "@@2@.jpg"])
def test_standard_name_other_form_gives_nothing(name: str) -> None:
    assert parse_standard_name(name) == {}


@given(st.text(alphabet="@0123456789.-nafie+T", max_size=60))
def test_standard_name_any_text_never_fails(name: str) -> None:
    pose = parse_standard_name(name)
    assert pose == {} or {"utm_e", "utm_n"} <= pose.keys()


def test_folder_nested_ids_are_relative_and_survive_a_move(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "a/1.jpg", "a/.hidden.jpg", ".git/3.jpg", "notes.txt", "c.tiff"):
        touch(tmp_path / "old" / name)
    before = [row["image_id"] for row in rows(tmp_path / "old")]
    (tmp_path / "old").rename(tmp_path / "new")
    assert before == ["c.tiff", "a/1.jpg", "b/2.PNG"]
    listed = rows(tmp_path / "new", id_prefix="lyon/")
    assert [row["image_id"] for row in listed] == ["lyon/" + image_id for image_id in before]
    assert listed[1]["uri"] == str(tmp_path / "new" / "a" / "1.jpg")


def test_folder_at_sign_in_parent_does_not_break_the_pose(tmp_path: Path) -> None:
    touch(tmp_path / "me@home" / PITTS_NAME)
    assert rows(tmp_path / "me@home")[0]["utm_e"] == 584286.37


def test_folder_symlink_out_of_root_is_rejected(tmp_path: Path) -> None:
    secret = touch(tmp_path / "secret.jpg")
    touch(tmp_path / "photos" / "ok.jpg")
    os.symlink(secret, tmp_path / "photos" / "leak.jpg")
    os.symlink(tmp_path, tmp_path / "photos" / "loop")
    listed = {row["image_id"]: row["rejected"] for row in rows(tmp_path / "photos")}
    assert listed == {"leak.jpg": "link_outside", "ok.jpg": None}


def test_folder_standard_layout_lists_database_only(tmp_path: Path) -> None:
    touch(tmp_path / "pitts/images/test/database" / PITTS_NAME)
    touch(tmp_path / "pitts/images/test/queries" / "@1@2@.jpg")
    assert [row["image_id"] for row in rows(tmp_path / "pitts")] == [PITTS_NAME]
    dataset = open_dataset(tmp_path / "pitts")
    assert dataset.name == "pitts"
    assert dataset.queries == tmp_path / "pitts/images/test/queries"
    with pytest.raises(SourceError, match="a known layout"):
        open_dataset(tmp_path / "pitts", split="val")


@pytest.mark.parametrize("make", ["missing", "empty", "text file"])
def test_source_unusable_is_named(tmp_path: Path, make: str) -> None:
    source = tmp_path / "source.txt"
    if make == "empty":
        source.mkdir()
    elif make == "text file":
        source.write_text("hello")
    with pytest.raises(SourceError):
        list_source(source)


def test_csv_full_row_is_read(tmp_path: Path) -> None:
    touch(tmp_path / "img" / "a.jpg")
    listing = write_csv(
        tmp_path / "city.csv",
        "path,latitude,longitude,heading,time,camera\n"
        "img/a.jpg,48.2,16.37,-90,2024-05-01T12:00:00+02:00,front\n",
    )
    (row,) = rows(listing)
    assert row == {
        "image_id": "img/a.jpg",
        "uri": str(tmp_path / "img" / "a.jpg"),
        "lat": 48.2,
        "lon": 16.37,
        "utm_e": None,
        "utm_n": None,
        "utm_zone": None,
        "heading_deg": 270.0,
        "captured_at": datetime(2024, 5, 1, 10, tzinfo=UTC),
        "source": str(listing),
        "tags": None,
        "notes": None,
        "rejected": None,
        "message": None,
    }


def test_csv_names_in_standard_form_give_the_pose(tmp_path: Path) -> None:
    touch(tmp_path / PITTS_NAME)
    assert rows(write_csv(tmp_path / "city.csv", f"uri\n{PITTS_NAME}\n"))[0]["utm_zone"] == "17T"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("../out.jpg,1,2", "outside_root"),
        ("/etc/passwd,1,2", "outside_root"),
        ("a/../../out.jpg,1,2", "outside_root"),
        ("link.jpg,1,2", "link_outside"),
        ("a\0b.jpg,1,2", "unreadable"),
        ("http://127.0.0.1:1/x.jpg,1,2", "unsupported_uri"),
        ("s3://Key:secret@bucket/x.jpg,1,2", "unsupported_uri"),
        ("s3://bucket/a//x.jpg,1,2", "unsupported_uri"),
        ("file:///etc/passwd,1,2", "outside_root"),
        ("file://host/x.jpg,1,2", "unsupported_uri"),
        (r"C:\photos\x.jpg,1,2", "outside_root"),
        (",1,2", "bad_value"),
        ("a.jpg,1,2,3", "bad_value"),
        ("a" * 5_000 + ".jpg,1,2", "bad_value"),
    ],
)
def test_csv_bad_row_is_rejected_and_the_rest_kept(tmp_path: Path, line: str, reason: str) -> None:
    touch(tmp_path / "out.jpg")
    root = tmp_path / "root"
    touch(root / "good.jpg")
    os.symlink(tmp_path / "out.jpg", root / "link.jpg")
    listed = rows(write_csv(root / "list.csv", f"uri,lat,lon\n{line}\ngood.jpg,3,4\n"))
    assert [row["rejected"] for row in listed] == [reason, None]
    assert listed[0]["message"]
    assert listed[1]["lat"] == 3.0


def test_csv_repeated_image_is_rejected_once(tmp_path: Path) -> None:
    listed = rows(write_csv(tmp_path / "l.csv", "uri\na.jpg\n./a.jpg\nb.jpg\n"))
    assert [row["rejected"] for row in listed] == [None, "duplicate_id", None]


def test_csv_own_ids_and_root_are_used(tmp_path: Path) -> None:
    touch(tmp_path / "photos" / "a.jpg")
    listing = write_csv(
        tmp_path / "l.csv", "image_id,uri,easting,northing,zone\nx7,a.jpg,500000,5000000,33T\n"
    )
    (row,) = rows(listing, root=tmp_path / "photos", id_prefix="p-")
    assert (row["image_id"], row["uri"]) == ("p-x7", str(tmp_path / "photos" / "a.jpg"))
    assert (row["utm_e"], row["utm_zone"]) == (500000.0, "33T")


@pytest.mark.parametrize(
    "text",
    [
        "lat,lon\n1,2\n",
        "uri,uri\na,b\n",
        ",".join(f"c{i}" for i in range(10_000)) + "\n",
        "",
        "uri\n",
    ],
)
def test_csv_unusable_as_a_whole_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(SourceError):
        list_source(write_csv(tmp_path / "l.csv", text))


def test_parquet_listing_equals_csv_listing(tmp_path: Path) -> None:
    table = pa.table(
        {"uri": ["a.jpg", "b.jpg"], "lat": [1.5, None], "lon": [2.5, None], "heading": [10, 370]}
    )
    pq.write_table(table, tmp_path / "l.parquet")
    csv = write_csv(tmp_path / "l.csv", "uri,lat,lon,heading\na.jpg,1.5,2.5,10\nb.jpg,,,370\n")
    listed = rows(tmp_path / "l.parquet")
    unequal = {"message": None, "source": None}
    assert [row | unequal for row in listed] == [row | unequal for row in rows(csv)]
    assert listed[0]["lat"] == 1.5
    assert listed[1]["heading_deg"] is None


@pytest.mark.parametrize("kind", ["garbage", "nested", "no uri"])
def test_parquet_unusable_as_a_whole_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "l.parquet"
    if kind == "garbage":
        path.write_bytes(b"PAR1" + os.urandom(100) + b"PAR1")
    elif kind == "nested":
        pq.write_table(pa.table({"uri": [["a"], ["b"]]}), path)
    else:
        pq.write_table(pa.table({"lat": [1.0]}), path)
    with pytest.raises(SourceError):
        list_source(path)


def test_listing_many_rows_keeps_order_and_count(tmp_path: Path) -> None:
    names = [f"{i:05d}.jpg" for i in range(25_000)]
    listed = rows(write_csv(tmp_path / "l.csv", "uri\n" + "\n".join(names) + "\n"))
    assert [row["image_id"] for row in listed] == names
