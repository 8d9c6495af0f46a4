"""Parquet listings, read in batches and bounded by what they expand to."""

from __future__ import annotations

import contextlib
import itertools
import math
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from pipelines.sources.columns import NAMES_OF_FILES, Column, map_columns, pick
from pipelines.sources.errors import SourceError
from pipelines.sources.notes import Note
from pipelines.sources.paths import clean

__all__ = ["read_parquet"]

BATCH_ROWS = 1_024
MAX_ROWS = 50_000_000
MAX_TEXT_BYTES = 64 << 10  # of one value
MAX_EXPANDED_BYTES = 4 << 30
# Compression that no list of distinct paths reaches; small files may exceed it.
MAX_ROWS_PER_BYTE, MAX_EXPANSION = 200, 2_000
FREE_ROWS, FREE_BYTES = 100_000, 64 << 20
MAX_VALUES_PER_ROW = 64  # of lists, on average

EPOCH = datetime(1970, 1, 1)
MICROSECONDS = {"s": 10**6, "ms": 10**3, "us": 1, "D": 86_400 * 10**6}
MAX_MICROSECONDS = 10**16  # beyond any year that is accepted
NESTED = ("geometry", "lat_lon", "lat", "lon", "tags")


def read_parquet(path: Path) -> tuple[Iterator[dict[str, Any]], list[Note]]:
    """Read the known columns of a Parquet file.

    Returns:
        The rows by our column names, read as they are needed, and notes on the columns.

    Raises:
        SourceError: the file cannot be read, is too large, or has columns that cannot be used; also later, as
            rows are read.
    """
    try:
        with pa.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            columns, notes = map_columns(schema.names, path)
            columns |= {ours: _names(columns[ours], schema, ours) for ours in NAMES_OF_FILES & set(columns)}
            kinds = {
                schema.names[column.place]: (ours, schema.field(column.place).type)
                for ours, choices in columns.items()
                for column in choices
            }
            _check_size(file.metadata, set(kinds), path)
            nested = _nested_texts(file.schema, set(kinds))
        for name, (ours, kind) in kinds.items():
            if ours in NAMES_OF_FILES and pa.types.is_nested(kind):
                raise SourceError(f"{path}: column {name} has type {kind}: give text")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    # Values that repeat stay in a dictionary until their lengths are known.
    texts = [name for name, (_, kind) in kinds.items() if _is_text(kind)]
    names = {name: ours for name, (ours, _) in kinds.items()}
    return _rows(path, schema.names, columns, names, texts + nested), notes


def _rows(
    path: Path,
    header: list[str],
    columns: dict[str, list[Column]],
    names: dict[str, str],
    texts: list[str],
) -> Iterator[dict[str, Any]]:
    """Yield the rows; `names` has our name of each column that is read."""
    expanded, size = 0, path.stat().st_size
    unread: list[list[Any]] = [[]] * len(header)
    try:
        with pa.parquet.ParquetFile(path, read_dictionary=texts) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=list(names)):
                expanded += sum(_text_bytes(array, path) for array in batch.columns)
                if expanded > _max_expanded(size):
                    raise SourceError(f"{path}: {size} bytes expand to more than {expanded}: split it")
                values = list(unread)
                for name, array in zip(batch.schema.names, batch.columns, strict=True):
                    values[header.index(name)] = _values(array, names[name])
                for cells in itertools.zip_longest(*values):
                    yield pick(columns, cells)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def _names(choices: list[Column], schema: pa.Schema, ours: str) -> list[Column]:
    """Return the columns that may have paths or ids, or the first one; others hold the images themselves."""

    def may_name(column: Column) -> bool:
        kind = schema.field(column.place).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        return is_text if ours == "uri" else not pa.types.is_nested(kind)

    return [column for column in choices if may_name(column)] or choices[:1]


def _unreadable(path: Path, error: Exception) -> SourceError:
    return SourceError(f"{path} cannot be read as Parquet ({clean(str(error))[:300]}): repair or convert it")


def _check_size(metadata: Any, names: set[str], path: Path) -> None:
    """Refuse by its own metadata a file that would not fit into memory."""
    rows = metadata.num_rows
    if rows > min(MAX_ROWS, max(FREE_ROWS, path.stat().st_size * MAX_ROWS_PER_BYTE)):
        raise SourceError(f"{path}: {path.stat().st_size} bytes expand to {rows} rows: split the listing")
    expanded = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema.split(".")[0] in names or column.path_in_schema in names:
                expanded += column.total_uncompressed_size
                if column.num_values > max(FREE_ROWS, group.num_rows * MAX_VALUES_PER_ROW):
                    raise SourceError(
                        f"{path}: a list has {column.num_values} values in {group.num_rows} rows, "
                        f"{MAX_VALUES_PER_ROW} per row at most: is it a listing?"
                    )
    if expanded > _max_expanded(path.stat().st_size):
        raise SourceError(f"{path}: {path.stat().st_size} bytes expand to {expanded}: split it")


def _max_expanded(size: int) -> int:
    return min(MAX_EXPANDED_BYTES, max(FREE_BYTES, size * MAX_EXPANSION))


def _nested_texts(schema: Any, names: set[str]) -> list[str]:
    """Return the paths of texts inside lists and the like, for those of our columns."""
    columns = map(schema.column, range(len(schema)))
    inside = (column for column in columns if column.path not in names)
    return [c.path for c in inside if c.physical_type == "BYTE_ARRAY" and c.path.split(".")[0] in names]


def _is_text(kind: pa.DataType) -> bool:
    return any(check(kind) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary))


def _text_bytes(array: pa.Array, path: Path) -> int:
    """Return the size of an array's texts when each value is written out.

    Raises:
        SourceError: one of them is too long.
    """
    indices = None
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_map(array.type):
        return _text_bytes(array.keys, path) + _text_bytes(array.items, path)
    if pa.types.is_struct(array.type):
        return sum(_text_bytes(field, path) for field in array.flatten())
    if pa.types.is_nested(array.type):
        return _text_bytes(array.flatten(), path)
    if isinstance(array, pa.DictionaryArray):
        indices, array = array.indices, array.dictionary
    kind = array.type
    if not (_is_text(kind) or pa.types.is_large_binary(kind)) or not len(array):
        return 0
    lengths = pc.binary_length(array)
    longest = pc.max(lengths).as_py() or 0
    if longest > MAX_TEXT_BYTES:
        raise SourceError(f"{path}: a value has {longest} bytes, {MAX_TEXT_BYTES} at most: is it a listing?")
    if indices is not None:
        lengths = lengths.take(indices)
    return pc.sum(lengths).as_py() or 0


def _values(array: pa.Array, ours: str) -> list[Any]:
    """Return the values of an array as Python objects; what has no meaning here becomes text."""
    if isinstance(array, pa.ExtensionArray):
        if str(array.type).startswith("extension<arrow.uuid"):
            return [
                None if value is None else str(uuid.UUID(bytes=value)) for value in array.storage.to_pylist()
            ]
        array = array.storage
    kind = array.type
    if isinstance(array, pa.DictionaryArray):
        values = _values(array.dictionary, ours)
        return [None if index is None else values[index] for index in array.indices.to_pylist()]
    if pa.types.is_timestamp(kind):
        aware = kind.tz is not None
        return [_moment(value, kind.unit, aware=aware) for value in array.cast(pa.int64()).to_pylist()]
    if pa.types.is_date(kind):
        unit, width = ("D", pa.int32()) if pa.types.is_date32(kind) else ("ms", pa.int64())
        return [_moment(value, unit, aware=False) for value in array.cast(width).to_pylist()]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):  # a file may claim UTF-8 wrongly
        texts = array.cast(pa.large_binary()).to_pylist()
        return [None if text is None else text.decode("utf-8", "replace") for text in texts]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return array.to_pylist() if ours in NESTED else _decoded(array.to_pylist())
    values = [f"a value of type {kind}"] * len(array)
    if ours in NESTED or not pa.types.is_nested(kind):
        # Times of day and durations may be beyond Python's.
        with contextlib.suppress(ValueError, OverflowError):
            values = array.to_pylist()
    if ours == "image_id":  # pandas makes floats of integers where one is missing
        values = [
            int(value) if isinstance(value, float | Decimal) and _is_whole(value) else value
            for value in values
        ]
    return values


def _is_whole(value: float | Decimal) -> bool:
    return math.isfinite(value) and value == int(value)


def _decoded(values: list[bytes | None]) -> list[str | None]:
    return [None if value is None else value.decode("utf-8", "replace") for value in values]


def _moment(value: int | None, unit: str, *, aware: bool) -> datetime | str | None:
    """Return the time that a number of units since 1970 means, or text where it is beyond any year."""
    if value is None:
        return None
    micro = value // 1000 if unit == "ns" else value * MICROSECONDS[unit]
    if abs(micro) > MAX_MICROSECONDS:
        return f"{value} {unit} since 1970"
    time = EPOCH + timedelta(microseconds=micro)
    return time.replace(tzinfo=UTC) if aware else time
