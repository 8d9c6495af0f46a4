"""The dictionary of a column and the sizes of its pages, by their headers."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.parquet_footer import RowGroup, read_row_groups
from storage.parquet_pages import check_pages, dictionary_entries

DISTINCT = [f"{n:06}.jpg" for n in range(5_000)]


def written(texts: list[str | None], **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"uri": pa.array(texts, pa.string())}), file, **options)
    return file.getvalue()


def entries(data: bytes) -> list[int | None]:
    file = io.BytesIO(data)
    return [dictionary_entries(file, group.columns[0]) for group in read_row_groups(file)]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_dictionary_has_as_many_entries_as_there_are_values(version: str, compression: str) -> None:
    options = {"data_page_version": version, "compression": compression}
    assert entries(written(["a", "b", None] * 700, row_group_size=1_000, **options)) == [2, 2, 2]
    assert entries(written(DISTINCT, use_dictionary=False, **options)) == [0]
    assert entries(written(DISTINCT, data_page_size=4_000, **options)) == [5_000]


def test_a_dictionary_that_was_given_up_has_the_entries_until_then() -> None:
    data = written(DISTINCT, dictionary_pagesize_limit=10_000, data_page_size=4_000, write_batch_size=100)
    (found,) = entries(data)
    assert found is not None
    assert 500 < found < 2_000
    first = next(pq.ParquetFile(io.BytesIO(data), read_dictionary=["uri"]).iter_batches(1))
    assert len(first.column(0).dictionary) == found


def test_damaged_headers_leave_it_open_or_say_the_same() -> None:
    data = written(DISTINCT, dictionary_pagesize_limit=10_000, data_page_size=4_000, compression="none")
    (chunk,) = read_row_groups(io.BytesIO(data))[0].columns
    assert chunk.dictionary_at is not None
    unknown = 0
    for seed in range(500):
        chance = random.Random(seed)
        damaged = bytearray(data)
        for _ in range(3):
            damaged[chunk.dictionary_at + chance.randrange(30)] = chance.randrange(256)
        found = dictionary_entries(io.BytesIO(bytes(damaged)), chunk)
        unknown += found is None
    assert 0 < unknown < 500
    assert dictionary_entries(io.BytesIO(data[: chunk.dictionary_at + 100]), chunk) is None


def test_a_field_that_stands_twice_is_not_believed() -> None:
    data = written(DISTINCT, use_dictionary=False, compression="none")
    (chunk,) = read_row_groups(io.BytesIO(data))[0].columns
    assert data[chunk.data_at : chunk.data_at + 2] == b"\x15\x00"  # field 1: a data page
    twice = data[: chunk.data_at] + b"\x15\x04\x05\x02\x00" + data[chunk.data_at + 2 :]
    assert dictionary_entries(io.BytesIO(twice), chunk) is None


def varint(number: int) -> bytes:
    encoded, number = bytearray(), number << 1
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def claiming(data: bytes, *, expanded: int | None = None, stored: int | None = None) -> bytes:
    """Return a file whose first page has other sizes in its header, in place of its last bytes of data."""
    (chunk,) = read_row_groups(io.BytesIO(data))[0].columns
    begin, end = 4, 4 + chunk.stored_bytes
    at, sizes = begin + 3, []
    # Its type and its size expanded, each an integer in the field after the last one.
    assert data[begin] == data[begin + 2] == 0x15
    for claimed in (expanded, stored):
        length = next(n for n in range(1, 11) if data[at + n - 1] < 128)
        sizes.append(data[at : at + length] if claimed is None else varint(claimed))
        at += length + 1
    header = data[begin : begin + 3] + sizes[0] + b"\x15" + sizes[1]
    changed = (header + data[at - 1 : end])[: end - begin]
    return data[:begin] + changed.ljust(end - begin, b"\0") + data[end:]


@pytest.mark.parametrize(
    "claimed",
    [
        {"stored": 2**31 - 1},
        {"stored": 100_000},
        {"expanded": 2**31 - 1},
        {"stored": 2**31 - 1, "expanded": 3},
    ],
)
def test_a_page_that_is_larger_than_its_column_is_refused(claimed: dict[str, int]) -> None:
    data = written(DISTINCT, use_dictionary=False, compression="zstd")
    group = read_row_groups(io.BytesIO(data))[0]
    check_pages(io.BytesIO(data), group, ["uri"])
    check_pages(io.BytesIO(claiming(data)), group, ["uri"])
    altered = io.BytesIO(claiming(data, **claimed))
    with pytest.raises(pa.ArrowInvalid, match=r"column uri has a page of [0-9]+ bytes"):
        check_pages(altered, group, ["uri"])
    check_pages(altered, group, ["another"])


def test_pages_of_nested_columns_and_of_all_kinds_are_accepted() -> None:
    table = pa.table(
        {
            "photo": [{"bytes": b"x" * 3_000_000, "path": f"{n}.jpg"} for n in range(4)],
            "tags": [["a", "b"], [], None, ["c"]],
            "uri": ["y" * 40_000, "z", None, ""],
        }
    )
    for options in ({"data_page_version": "2.0"}, {"compression": "none", "use_dictionary": ["tags"]}, {}):
        file = io.BytesIO()
        pq.write_table(table, file, row_group_size=2, write_statistics=True, **options)
        for group in read_row_groups(file):
            check_pages(file, group, ["photo", "tags", "uri"])
            check_pages(file, group, ["photo.bytes"])


def test_headers_that_end_or_never_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(DISTINCT, use_dictionary=False, data_page_size=1_000, write_batch_size=10)
    group = read_row_groups(io.BytesIO(data))[0]
    (chunk,) = group.columns
    with pytest.raises(pa.ArrowInvalid, match=r"end before its values|damaged"):
        check_pages(io.BytesIO(data), RowGroup(group.rows, (replace(chunk, values=5_001),)), ["uri"])
    with pytest.raises(pa.ArrowInvalid, match="damaged"):
        check_pages(io.BytesIO(data[: chunk.data_at]), group, ["uri"])
    other_kinds = data[: chunk.data_at] + b"\x15\x04\x15\x02\x15\x02\x48\x00\x00" + data[chunk.data_at + 9 :]
    with pytest.raises(pa.ArrowInvalid, match="damaged"):  # a dictionary page whose header is an empty text
        check_pages(io.BytesIO(other_kinds), group, ["uri"])
    monkeypatch.setattr("storage.parquet_pages._MAX_PAGES", 10)
    with pytest.raises(pa.ArrowInvalid, match="more than 10 pages"):
        check_pages(io.BytesIO(data), group, ["uri"])
