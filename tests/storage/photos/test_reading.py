"""Bytes of photos: objects, ranges and values of tables, and the reasons why they cannot be had."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.objects import source_bucket
from storage.objects.errors import SecretInOptions, UnknownStorageOption
from storage.objects.source_bucket import open_source_bucket
from storage.photos import table_cells
from storage.photos.errors import PhotoUnavailable
from storage.photos.reading import place_exists, read_photo
from storage.photos.uris import ByteSpan, ObjectUri, TableCell, local_container, with_part
from tests.support.bucket_photos import put_objects
from tests.support.fault_proxy import FaultProxy, Kind
from tests.support.object_servers import KEY_ID, SECRET


@pytest.fixture
def folder() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries of milliseconds; their number is what users have."""
    backoff = {
        name: value / 100 for name, value in source_bucket.RETRIES["backoff"].items() if name != "base"
    }
    monkeypatch.setitem(source_bucket.RETRIES, "backoff", {**backoff, "base": 2})


def reason_of(uri: str, options: dict[str, str] | None = None, max_bytes: int = 100) -> str:
    with pytest.raises(PhotoUnavailable) as raised:
        read_photo(uri, max_bytes, options)
    assert SECRET not in str(raised.value)
    assert KEY_ID not in str(raised.value)
    return raised.value.reason


def test_objects_and_ranges(moto_url: str, credentials: None, folder: str) -> None:
    keys = [f"{folder}/a b.jpg", f"{folder}/ü#1?x=%41.jpg"]
    put_objects(moto_url, dict.fromkeys(keys, b"0123456789"))
    options = {"endpoint": moto_url}
    for key in keys:
        uri = str(ObjectUri("s3", "placeray", key))
        assert read_photo(uri, 10, options) == b"0123456789"
        assert read_photo(with_part(uri, ByteSpan(2, 3)), 10, options) == b"234"
        assert place_exists(uri, options)
        assert reason_of(uri, options, max_bytes=9) == "too_large"
        assert reason_of(with_part(uri, ByteSpan(2, 9)), options) == "truncated"
        assert reason_of(with_part(uri, ByteSpan(0, 10**9)), options) == "too_large"
    missing = f"s3://placeray/{folder}/none.jpg"
    assert reason_of(missing, options) == "missing"
    assert not place_exists(missing, options)
    assert reason_of(f"s3://no-such-bucket-{folder}/a.jpg", options) == "missing"
    assert reason_of(f"s3://placeray/{folder}/a b.jpg#row=1", options) == "unsupported_uri"


@pytest.mark.parametrize(
    ("kind", "reason", "tries"),
    [
        ("503", "throttled", 6),
        ("500", "unreachable", 6),
        ("truncate", "truncated", 6),
        ("403", "forbidden", 1),
    ],
)
def test_what_lasts_is_a_reason_after_bounded_tries(
    faulty: FaultProxy, quick: None, folder: str, kind: Kind, reason: str, tries: int
) -> None:
    put_objects(faulty.url, {f"{folder}/a.jpg": b"0123456789" * 100})
    # An option of its own, since the client keeps its pauses.
    options = {"endpoint": faulty.url, "timeout_s": "3"}
    faulty.clear()
    faulty.fail(kind, method="GET")
    assert reason_of(f"s3://placeray/{folder}/a.jpg", options, 1_000) == reason
    assert len(faulty.seen) == tries


@pytest.mark.parametrize("kind", ["503", "500", "truncate", "lost answer"])
def test_what_passes_heals(faulty: FaultProxy, quick: None, folder: str, kind: Kind) -> None:
    put_objects(faulty.url, {f"{folder}/a.jpg": b"0123456789" * 100})
    faulty.fail(kind, method="GET", times=2)
    options = {"endpoint": faulty.url, "timeout_s": "3"}
    assert read_photo(f"s3://placeray/{folder}/a.jpg", 1_000, options) == b"0123456789" * 100
    assert faulty.faults[0].times == 0


def test_options_of_other_schemes_are_left_out_and_secrets_refused(credentials: None) -> None:
    opened = open_source_bucket("s3", "bucket", {"endpoint": "http://127.0.0.1:1"})
    for text in (repr(opened), repr(opened.address), opened.address.uri):
        assert SECRET not in text
        assert KEY_ID not in text
    assert dict(open_source_bucket("s3", "bucket", {"account_name": "x"}).address.options) == {}
    assert dict(open_source_bucket("az", "bucket", {"account_name": "x"}).address.options) == {
        "account_name": "x"
    }
    aws = {"aws_endpoint": "http://127.0.0.1:1"}
    assert dict(open_source_bucket("s3", "bucket", aws).address.options) == {"endpoint": "http://127.0.0.1:1"}
    with pytest.raises(SecretInOptions):
        open_source_bucket("s3", "bucket", {"secret_access_key": "x"})
    with pytest.raises(UnknownStorageOption):
        open_source_bucket("s3", "bucket", {"colour": "red"})


def test_a_prefix_is_listed_whole_and_in_the_same_order(
    moto_url: str, credentials: None, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_bucket, "_PAGE", 7)
    keys = {f"{folder}/{city}/{at % 5}/{at:03}.jpg" for city in "ab" for at in range(60)}
    keys |= {f"{folder}/top{at}.jpg" for at in range(9)}
    put_objects(moto_url, {**dict.fromkeys(keys, b"x"), f"{folder}x/other.jpg": b"x"})
    bucket = open_source_bucket("s3", "placeray", {"endpoint": moto_url})
    listed = [each.key for page in bucket.pages(folder) for each in page]
    assert sorted(listed) == sorted(keys)
    assert [each.key for page in bucket.pages(folder) for each in page] == listed
    assert [each.key for page in bucket.pages(f"{folder}/a/3") for each in page] == sorted(
        key for key in keys if "/a/3/" in key
    )
    assert list(bucket.pages(f"{folder}/none")) == []


def test_values_of_parquet_files(
    moto_url: str, credentials: None, tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photos.parquet"
    values = [bytes([row]) * 10 for row in range(25)]
    nested = [{"bytes": value, "path": "x"} for value in values]
    pq.write_table(pa.table({"plain": [*values[:24], None], "image": nested}), path, row_group_size=10)
    put_objects(moto_url, {f"{folder}/photos.parquet": path.read_bytes()})
    for container, options in (
        (local_container(str(path)), None),
        (f"s3://placeray/{folder}/photos.parquet", {"endpoint": moto_url}),
    ):
        for row in (0, 9, 10, 23):
            assert read_photo(with_part(container, TableCell(row, "plain")), 10, options) == values[row]
            assert read_photo(with_part(container, TableCell(row, "image.bytes")), 10, options) == values[row]
        assert reason_of(with_part(container, TableCell(24, "plain")), options) == "missing"
        assert reason_of(with_part(container, TableCell(25, "plain")), options) == "unreadable"
        assert reason_of(with_part(container, TableCell(0, "none")), options) == "unreadable"
        assert reason_of(with_part(container, TableCell(0, "plain")), options, max_bytes=9) == "too_large"
    monkeypatch.setattr(table_cells, "MAX_GROUP_BYTES", 50)
    os.utime(path, (1, 1))  # as if written again
    assert reason_of(with_part(local_container(str(path)), TableCell(0, "plain"))) == "too_large"


@pytest.mark.parametrize("blobs", [False, True])
def test_values_of_lance_data_sets_are_those_of_the_version(tmp_path: Path, blobs: bool) -> None:
    kind = {"lance-encoding:blob": "true"} if blobs else None
    schema = pa.schema([pa.field("image", pa.large_binary(), metadata=kind)])
    path = str(tmp_path / "photos.lance")
    lance.write_dataset(pa.table({"image": [b"a", b"b", b"c"]}, schema=schema), path)
    lance.write_dataset(pa.table({"image": [b"x", b"y", b"z"]}, schema=schema), path, mode="overwrite")
    for version, expected in ((1, b"b"), (2, b"y")):
        assert read_photo(with_part(local_container(path), TableCell(1, "image", version)), 10) == expected
    assert reason_of(with_part(local_container(path), TableCell(9, "image", 1))) == "unreadable"
    assert reason_of(with_part(local_container(path), TableCell(0, "image", 9))) == "unreadable"
    none = local_container(str(tmp_path / "none.lance"))
    assert reason_of(with_part(none, TableCell(0, "image", 1))) in ("missing", "unreadable")


def test_ranges_of_local_files_do_not_follow_links(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"0123456789")
    (tmp_path / "link.tar").symlink_to(path)
    assert read_photo(with_part(local_container(str(path)), ByteSpan(3, 4)), 10) == b"3456"
    assert reason_of(with_part(local_container(str(tmp_path / "link.tar")), ByteSpan(3, 4))) == "unreadable"
    assert reason_of(with_part(local_container(str(tmp_path)), ByteSpan(3, 4))) == "unreadable"
    assert reason_of(with_part(local_container(str(tmp_path / "none")), ByteSpan(3, 4))) == "missing"
    assert reason_of(f"{local_container(str(path))}#") == "unsupported_uri"
