"""Parquet files that list photos or hold them, read in batches and bounded by what they expand to."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from pipelines.sources.arrow_values import cells_of, is_text, text_bytes
from pipelines.sources.columns import NAMES_OF_FILES, Column, map_columns, pick
from pipelines.sources.errors import SourceError
from pipelines.sources.notes import Note
from pipelines.sources.parquet_batches import read_batches
from pipelines.sources.paths import clean
from pipelines.sources.photo_columns import PhotoColumn, find_photo_column
from pipelines.sources.photo_rows import photo_row
from pipelines.sources.source_file import SourceFile
from storage.parquet_footer import RowGroup, read_row_groups
from storage.parquet_pages import check_pages

__all__ = ["read_parquet", "text_columns"]

MAX_ROWS = 50_000_000
MAX_EXPANDED_BYTES = 4 << 30
# Compression that no list of distinct paths reaches; small files may exceed it.
MAX_ROWS_PER_BYTE, MAX_EXPANSION = 200, 2_000
FREE_ROWS, FREE_BYTES = 100_000, 64 << 20
MAX_VALUES_PER_ROW = 64  # of lists, on average


def read_parquet(
    file: SourceFile, photo_column: str | None = None, *, needs_paths: bool = True
) -> tuple[Iterator[dict[str, Any]], list[Note]]:
    """Read the known columns of a Parquet file.

    Args:
        file: The file.
        photo_column: Column with the photos themselves; default: one whose values are photos, in a file
            without paths.
        needs_paths: Whether a file without photos must have a column with their paths.

    Returns:
        The rows by our column names, read as they are needed, and notes on the columns. Rows of a file that
        holds the photos have `photo`, see `pipelines.sources.photo_rows`.

    Raises:
        SourceError: the file cannot be read, is too large, or has columns that cannot be used; also later, as
            rows are read.
    """
    try:
        with file.parquet() as opened:
            schema = opened.schema_arrow
            photos = find_photo_column(
                schema,
                photo_column,
                file,
                lists_paths=bool(text_columns(schema)),
                peek=lambda path: _first_value(file, path),
            )
            columns, notes = map_columns(schema.names, file, needs_paths=needs_paths and photos is None)
            if photos is not None:
                columns = without_photos(columns, schema, photos)
            columns |= {ours: _names(columns[ours], schema, ours) for ours in NAMES_OF_FILES & set(columns)}
            kinds = {
                schema.names[column.place]: (ours, schema.field(column.place).type)
                for ours, choices in columns.items()
                for column in choices
            }
            with file.open() as raw:
                groups = read_row_groups(raw)
            _check_size(opened.metadata.num_rows, groups, set(kinds), file)
            nested = _nested_texts(opened.schema, set(kinds))
        for name, (ours, kind) in kinds.items():
            if ours in NAMES_OF_FILES and pa.types.is_nested(kind):
                raise SourceError(f"{file}: column {name} has type {kind}: give text")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(file, error) from error
    # Values that repeat stay in a dictionary until their lengths are known.
    texts = [name for name, (_, kind) in kinds.items() if is_text(kind)]
    names = {name: ours for name, (ours, _) in kinds.items()}
    rows = _rows(file, schema.names, columns, names, texts + nested, photos)
    if photos is not None:
        rows = (photo_row(row, file, photos.path, number) for number, row in enumerate(rows))
    return rows, notes


def text_columns(schema: pa.Schema) -> list[Column]:
    """Return the columns that hold paths as text."""
    try:
        columns, _ = map_columns(schema.names, "", needs_paths=True)
    except SourceError:
        return []
    return [column for column in columns["uri"] if _is_name(schema.field(column.place).type, "uri")]


def without_photos(
    columns: dict[str, list[Column]], schema: pa.Schema, photos: PhotoColumn
) -> dict[str, list[Column]]:
    """Return the columns that describe photos, without those that hold them or have binary paths."""
    held = photos.path.partition(".")[0]
    kept = {
        ours: [
            column
            for column in choices
            if schema.names[column.place] != held
            and (ours not in NAMES_OF_FILES or _is_name(schema.field(column.place).type, ours))
        ]
        for ours, choices in columns.items()
    }
    return {ours: choices for ours, choices in kept.items() if choices}


def _first_value(file: SourceFile, path: str) -> Any:
    with file.open() as raw, file.parquet(pre_buffer=False) as opened:
        groups = read_row_groups(raw)[: opened.num_row_groups]
        for number in (number for number, group in enumerate(groups) if group.rows):
            check_pages(raw, groups[number], [path])
            for batch in opened.iter_batches(1, row_groups=[number], columns=[path]):
                value = batch.column(0)[0].as_py()
                for name in path.split(".")[1:]:
                    value = value.get(name) if isinstance(value, dict) else None
                return value
    return None


def _rows(
    file: SourceFile,
    header: list[str],
    columns: dict[str, list[Column]],
    names: dict[str, str],
    texts: list[str],
    photos: PhotoColumn | None,
) -> Iterator[dict[str, Any]]:
    """Yield the rows; `names` has our name of each column that is read."""
    expanded, size = 0, file.size
    unread: list[list[Any]] = [[]] * len(header)
    named = [photos.names] if photos and photos.names else []
    try:
        for batch in read_batches(file, [*names, *named], texts):
            expanded += sum(text_bytes(array, file) for array in batch.columns)
            if expanded > _max_expanded(size):
                raise SourceError(f"{file}: {size} bytes expand to more than {expanded}: split it")
            values = list(unread)
            for name, array in zip(batch.schema.names, batch.columns, strict=True):
                if name in names:
                    values[header.index(name)] = cells_of(array, names[name])
            files = cells_of(batch.columns[-1].field(0), "uri") if named else [None] * batch.num_rows
            known = list(itertools.zip_longest(*values)) or [()] * batch.num_rows
            for cells, file_name in zip(known, files, strict=True):
                row = pick(columns, cells)
                yield row | {"uri": file_name} if named else row
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from error


def _is_name(kind: pa.DataType, ours: str) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(text if ours == "uri" else not pa.types.is_nested(kind))


def _names(choices: list[Column], schema: pa.Schema, ours: str) -> list[Column]:
    """Return the columns that may have paths or ids, or the first one; others hold the images themselves."""
    return [c for c in choices if _is_name(schema.field(c.place).type, ours)] or choices[:1]


def _unreadable(file: SourceFile, error: Exception) -> SourceError:
    return SourceError(f"{file} cannot be read as Parquet ({clean(str(error))[:300]}): repair or convert it")


def _check_size(rows: int, groups: list[RowGroup], names: set[str], file: SourceFile) -> None:
    """Refuse by its own metadata a file that would not fit into memory."""
    if rows > min(MAX_ROWS, max(FREE_ROWS, file.size * MAX_ROWS_PER_BYTE)):
        raise SourceError(f"{file}: {file.size} bytes expand to {rows} rows: split the listing")
    expanded = 0
    for group in groups:
        for column in group.columns:
            if column.path.split(".")[0] in names or column.path in names:
                expanded += column.expanded_bytes
                if column.values > max(FREE_ROWS, group.rows * MAX_VALUES_PER_ROW):
                    raise SourceError(
                        f"{file}: a list has {column.values} values in {group.rows} rows, "
                        f"{MAX_VALUES_PER_ROW} per row at most: is it a listing?"
                    )
    if expanded > _max_expanded(file.size):
        raise SourceError(f"{file}: {file.size} bytes expand to {expanded}: split it")


def _max_expanded(size: int) -> int:
    return min(MAX_EXPANDED_BYTES, max(FREE_BYTES, size * MAX_EXPANSION))


def _nested_texts(schema: Any, names: set[str]) -> list[str]:
    """Return the paths of texts inside lists and the like, for those of our columns."""
    columns = map(schema.column, range(len(schema)))
    inside = (column for column in columns if column.path not in names)
    return [c.path for c in inside if c.physical_type == "BYTE_ARRAY" and c.path.split(".")[0] in names]
