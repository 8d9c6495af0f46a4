"""Photos in containers: tar shards with JSON sidecars, Parquet and Lance with a column of photos."""

from __future__ import annotations

import io
import json
import tarfile
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.images import ImageRejected
from models.images.photo_file import read_bytes
from pipelines.sources import LISTING_SCHEMA, SourceError, list_source
from tests.support.bucket_photos import put_folder
from tests.support.encoded_images import encoded, scene

PHOTOS = [encoded(scene(64 + at, 48), "JPEG") for at in range(6)]
FACTS = {
    "latitude": 48.1,
    "lng": 11.5,
    "compass_angle": 90.0,
    "timestamp": "2024-05-01T10:00:00Z",
    "tags": ["a"],
}


def rows(source: str | Path, **options: Any) -> list[dict[str, Any]]:
    table = list_source(source, **options)
    assert table.schema == LISTING_SCHEMA
    listed: list[dict[str, Any]] = table.to_pylist()
    return listed


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], kind: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=kind) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def members(first: int, last: int) -> list[tuple[str, bytes]]:
    pairs = []
    for at in range(first, last):
        pairs += [
            (f"{at:04}.jpg", PHOTOS[at]),
            (f"{at:04}.json", json.dumps({**FACTS, "lat": 48 + at}).encode()),
        ]
    return pairs


def contents(listed: list[dict[str, Any]], options: dict[str, str] | None = None) -> list[bytes]:
    return [read_bytes(row["uri"], options) for row in listed]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_shard_gives_photos_with_the_facts_of_their_sidecars(tmp_path: Path, kind: int) -> None:
    path = write_tar(tmp_path / "a b#1.tar", members(0, 3), kind)
    listed = rows(path, id_prefix="x/")
    assert [row["image_id"] for row in listed] == [f"x/a b#1.tar/{at:04}.jpg" for at in range(3)]
    assert contents(listed) == PHOTOS[:3]
    first = listed[0]
    assert (first["lat"], first["lon"], first["heading_deg"], first["tags"]) == (48.0, 11.5, 90.0, '["a"]')
    assert first["captured_at"] == datetime(2024, 5, 1, 10, tzinfo=UTC)
    assert first["source"] == str(path)


def test_names_of_the_layout_long_names_and_facts_before_their_photo(tmp_path: Path) -> None:
    standard = "@0584286.37@4477236.93@17@T@040.44229@-079.99@pano@00@90.5@12@0@3@201311@night@.jpg"
    long = "folder/" * 30 + "1.jpg"
    listed = rows(
        write_tar(
            tmp_path / "a.tar",
            [
                (standard, PHOTOS[0]),
                ("k.json", b'{"id": "mine", "lat": 1, "lon": 2}'),
                ("k.left.jpg", PHOTOS[1]),
                ("k.txt", b"caption"),
                (long, PHOTOS[2]),
                ("._k.jpg", b"resource fork"),
                ("broken.json", b"{"),
                ("broken.jpg", PHOTOS[3]),
                ("list.json", b"[1]"),
                ("list.jpg", PHOTOS[4]),
            ],
            tarfile.PAX_FORMAT,
        )
    )
    assert [row["image_id"] for row in listed] == [
        f"a.tar/{standard}",
        "mine",
        f"a.tar/{long}",
        "a.tar/broken.jpg",
        "a.tar/list.jpg",
    ]
    assert listed[0]["utm_zone"] == "17T"
    assert (listed[1]["lat"], listed[1]["lon"]) == (1, 2)
    assert contents(listed) == PHOTOS[:5]


def test_many_shards_are_one_source_and_a_damaged_one_is_one_rejected_row(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    write_tar(folder / "p-00.tar", members(0, 2))
    whole = write_tar(folder / "p-01.tar", members(2, 4)).read_bytes()
    (folder / "p-01.tar").write_bytes(whole[: 512 + 512])
    write_tar(folder / "p-02.tar", members(4, 6))
    for source in (folder, folder / "p-{00..02}.tar", str(folder / "p-{00..02}.tar")):
        listed = rows(source)
        ids = [f"p-0{at // 2}.tar/{at:04}.jpg" for at in (0, 1, 2, 4, 5)]
        assert [row["image_id"] for row in listed if row["rejected"] is None] == ids
        refused = [row for row in listed if row["rejected"]]
        assert [row["image_id"] for row in refused][-1] == "p-01.tar"
        assert refused[-1]["rejected"] == "truncated"
    with pytest.raises(ImageRejected) as raised:
        read_bytes(listed[2]["uri"])
    assert raised.value.reason == "truncated"
    missing = rows(folder / "p-{00..03}.tar")
    assert [row["rejected"] for row in missing][-1] == "missing"


def test_a_folder_with_images_keeps_to_its_images(tmp_path: Path) -> None:
    write_tar(tmp_path / "backup.tar", members(0, 2))
    (tmp_path / "a.jpg").write_bytes(PHOTOS[0])
    assert [row["image_id"] for row in rows(tmp_path)] == ["a.jpg"]


def test_headers_that_want_much_memory_end_the_shard(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 10_000)
    (row,) = rows(path)
    assert row["rejected"] == "truncated"


@pytest.mark.parametrize("form", ["plain", "hugging face", "named"])
def test_parquet_with_the_photos(tmp_path: Path, form: str) -> None:
    facts = {"lat": [48.0 + at for at in range(6)], "lon": [11.0] * 6}
    names = [f"n{at}.jpg" for at in range(6)]
    columns: dict[str, Any] = {
        "plain": {"image": PHOTOS},
        "hugging face": {"image": [{"bytes": b, "path": n} for b, n in zip(PHOTOS, names, strict=True)]},
        "named": {"filename": names, "scan": PHOTOS, "thumb": [b"\xff\xd8\xff"] * 6},
    }[form]
    path = tmp_path / "city.parquet"
    pq.write_table(pa.table({**columns, **facts}), path, row_group_size=4)
    listed = rows(path, **({"photo_column": "scan"} if form == "named" else {}))
    assert [row["image_id"] for row in listed] == (
        [f"city.parquet/{at}" for at in range(6)] if form == "plain" else names
    )
    assert [row["lat"] for row in listed] == facts["lat"]
    assert contents(listed) == PHOTOS


def test_parquet_that_lists_paths_is_a_listing_whatever_else_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PHOTOS[0])
    pq.write_table(pa.table({"path": ["a.jpg"], "image": [PHOTOS[1]]}), tmp_path / "city.parquet")
    (row,) = rows(tmp_path / "city.parquet")
    assert row["uri"] == str(tmp_path / "a.jpg")
    pq.write_table(pa.table({"lat": [1.0], "data": [b"no photo"]}), tmp_path / "none.parquet")
    with pytest.raises(SourceError):
        rows(tmp_path / "none.parquet")
    with pytest.raises(SourceError):
        rows(tmp_path / "city.parquet", photo_column="path")
    with pytest.raises(SourceError):
        rows(tmp_path, photo_column="image")


def test_parquet_with_nothing_but_photos(tmp_path: Path) -> None:
    pq.write_table(pa.table({"jpg": PHOTOS}), tmp_path / "city.parquet")
    listed = rows(tmp_path / "city.parquet")
    assert contents(listed) == PHOTOS


@pytest.mark.parametrize("blobs", [False, True])
def test_lance_with_the_photos(tmp_path: Path, blobs: bool) -> None:
    kind = {"lance-encoding:blob": "true"} if blobs else None
    schema = pa.schema(
        [pa.field("photo", pa.large_binary(), metadata=kind), ("id", pa.string()), ("lat", pa.float64())]
    )
    table = pa.table({"photo": PHOTOS, "id": [f"i{at}" for at in range(6)], "lat": [48.0] * 6}, schema=schema)
    lance.write_dataset(table, str(tmp_path / "city.lance"))
    listed = rows(tmp_path / "city.lance")
    assert [row["image_id"] for row in listed] == [f"i{at}" for at in range(6)]
    assert contents(listed) == PHOTOS
    lance.write_dataset(table.slice(3), str(tmp_path / "city.lance"), mode="overwrite")
    assert contents(listed) == PHOTOS  # of the version that was listed
    with pytest.raises(SourceError):
        rows(tmp_path / "city.lance", photo_column="id")


def test_containers_in_a_bucket(moto_url: str, credentials: None, tmp_path: Path) -> None:
    folder, prefix, options = tmp_path / "all", uuid.uuid4().hex, {"endpoint": moto_url}
    (folder / "tar").mkdir(parents=True)
    (folder / "table").mkdir()
    write_tar(folder / "tar/0.tar", members(0, 3))
    write_tar(folder / "tar/1.tar", members(3, 6))
    for at in range(2):
        pq.write_table(pa.table({"image": PHOTOS[3 * at : 3 * at + 3]}), folder / f"table/{at}.parquet")
    lance.write_dataset(pa.table({"image": PHOTOS}), str(folder / "city.lance"))
    put_folder(moto_url, folder, prefix)
    ids = {
        "tar": [f"{at // 3}.tar/{at:04}.jpg" for at in range(6)],
        "tar/{0..1}.tar": [f"{at // 3}.tar/{at:04}.jpg" for at in range(6)],
        "table": [f"{at // 3}.parquet/{at % 3}" for at in range(6)],
        "city.lance": [f"city.lance/{at}" for at in range(6)],
    }
    for name, expected in ids.items():
        listed = rows(f"s3://placeray/{prefix}/{name}", options=options)
        assert [row["image_id"] for row in listed] == expected
        assert contents(listed, options) == PHOTOS
