"""URIs of photos: every key comes back, parts are read strictly, nothing secret is repeated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.photos.uris import ByteSpan, ObjectUri, PhotoUri, TableCell, local_container, with_part

KEYS = ["a.jpg", "a b/ü#1?x=%41.jpg", "@0584286.37@4477236.93@17@T@.jpg", "a+b&c=d/[1]*.jpg", "x%20y"]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_taken_as_it_stands_and_comes_back(key: str) -> None:
    uri = ObjectUri.from_text(f"s3://bucket/{key}")
    assert uri.key == key
    assert ObjectUri.parse(str(uri)) == uri
    assert PhotoUri.parse(str(uri)) == PhotoUri(uri)


@given(st.text(max_size=60), st.integers(0, 10**9), st.integers(1, 10**9))
def test_any_key_that_is_accepted_comes_back_with_its_part(key: str, start: int, length: int) -> None:
    try:
        uri = ObjectUri.from_text(f"gs://bucket/{key}")
    except ValueError:
        return
    span = ByteSpan(start, length)
    assert PhotoUri.parse(with_part(str(uri), span)) == PhotoUri(uri, span)


@pytest.mark.parametrize("path", ["/photos/a.tar", "/with space/ü#%?.tar"])
@pytest.mark.parametrize(
    "part", [ByteSpan(512, 100), TableCell(17, "image.bytes"), TableCell(3, "a&b=c", version=4)]
)
def test_a_part_of_a_local_container_comes_back(path: str, part: ByteSpan | TableCell) -> None:
    assert PhotoUri.parse(with_part(local_container(path), part)) == PhotoUri(path, part)


def test_rows_of_a_table_sort_by_number() -> None:
    uris = [with_part("s3://bucket/a.parquet", TableCell(row, "image")) for row in (2, 10, 1_000, 99)]
    assert [PhotoUri.parse(uri).part.row for uri in sorted(uris)] == [2, 10, 99, 1_000]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        "s3://user:hunter2@bucket/a.jpg",
        "s3://Bucket_/a.jpg",
        "s3:///a.jpg",
        "s3://bucket/a//b.jpg",
        "s3://bucket/../a.jpg",
        "s3://bucket/a\n.jpg",
        "s3://bucket/" + "a" * 1_025,
        "ftp://bucket/a.jpg",
    ],
)
def test_what_cannot_be_asked_for_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError) as raised:
        ObjectUri.from_text(text)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "fragment",
    [
        "bytes=9-3",
        "bytes=-3",
        "bytes=1",
        "row=1",
        "row=-1&column=a",
        "row=1&column=",
        "row=1&column=a&version=x",
        "x",
    ],
)
def test_a_part_that_is_none_is_refused(fragment: str) -> None:
    with pytest.raises(ValueError):
        PhotoUri.parse(f"s3://bucket/a.tar#{fragment}")


def test_a_stored_photo_names_no_server() -> None:
    with pytest.raises(ValueError):
        PhotoUri.parse("s3://bucket/a.jpg?endpoint=http://169.254.169.254")


def test_a_file_name_is_a_path_whatever_it_contains() -> None:
    assert PhotoUri.parse("/photos/a#bytes=1-2.jpg") == PhotoUri("/photos/a#bytes=1-2.jpg")
