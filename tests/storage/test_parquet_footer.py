from __future__ import annotations

import io
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.parquet_footer import read_row_groups

TABLE = pa.table(
    {
        "uri": [f"{n}.jpg" for n in range(1000)],
        "tags": [["x", "y"]] * 1000,
        "at": [{"lat": 1.0, "lon": None}] * 1000,
        "known": [True] * 1000,
    }
)


def written(table: pa.Table = TABLE, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {"row_group_size": 300},
        {"compression": "zstd", "use_dictionary": False},
        {"write_page_index": True, "store_schema": False},
        {"write_statistics": False, "data_page_version": "2.0", "version": "1.0"},
        {"sorting_columns": [pq.SortingColumn(0)]},
    ],
    ids=str,
)
def test_row_groups_are_those_of_pyarrow(options: dict[str, Any]) -> None:
    data = written(**options)
    meta = pq.read_metadata(io.BytesIO(data))
    groups = read_row_groups(io.BytesIO(data))
    assert len(groups) == meta.num_row_groups
    for number, group in enumerate(groups):
        theirs = meta.row_group(number)
        assert group.rows == theirs.num_rows
        columns = [theirs.column(at) for at in range(theirs.num_columns)]
        assert [(c.path, c.values, c.expanded_bytes) for c in group.columns] == [
            (c.path_in_schema, c.num_values, c.total_uncompressed_size) for c in columns
        ]


def test_a_table_of_many_columns_and_of_none() -> None:
    wide = pa.table({f"c{n}": [n] for n in range(300)})
    assert len(read_row_groups(io.BytesIO(written(wide)))[0].columns) == 300
    empty = pa.table({"a": pa.array([], pa.int8())})
    assert sum(group.rows for group in read_row_groups(io.BytesIO(written(empty)))) == 0


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", b"PAR1\xff\xff\xff\x7fPAR1", b"PAR1\x04\0\0\0PARE", bytes(100)]
)
def test_what_has_no_footer_is_refused(data: bytes) -> None:
    with pytest.raises(pa.ArrowInvalid):
        read_row_groups(io.BytesIO(data))


def test_any_damage_of_the_footer_is_refused_or_read() -> None:
    data = written(row_group_size=300)
    length = int.from_bytes(data[-8:-4], "little")
    refused = 0
    for seed in range(500):
        chance = random.Random(seed)
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 6)):
            damaged[len(data) - 8 - chance.randint(1, length)] = chance.randrange(256)
        try:
            read_row_groups(io.BytesIO(bytes(damaged)))
        except pa.ArrowInvalid:
            refused += 1
    assert 0 < refused < 500
