"""The dictionary of a column, by the headers of its pages."""

from __future__ import annotations

import io
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.parquet_footer import read_row_groups
from storage.parquet_pages import dictionary_entries

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
