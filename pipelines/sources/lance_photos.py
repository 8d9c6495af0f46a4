"""Lance data sets with the photos in a binary column, or in one of blobs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.sources.arrow_values import cells_of, text_bytes
from pipelines.sources.columns import Column, map_columns, pick
from pipelines.sources.errors import SourceError
from pipelines.sources.notes import Note
from pipelines.sources.parquet_file import without_photos
from pipelines.sources.paths import clean
from pipelines.sources.photo_columns import find_photo_column
from pipelines.sources.photo_rows import photo_row
from pipelines.sources.source_file import SourceFile
from storage.photos.table_cells import is_blob, lance_dataset

__all__ = ["read_lance"]

BATCH_ROWS = 1_024


def read_lance(
    file: SourceFile, photo_column: str | None = None
) -> tuple[Iterator[dict[str, Any]], list[Note]]:
    """Read the newest version of a Lance data set, which the rows name, so that it may change meanwhile.

    Args:
        file: Its folder or prefix.
        photo_column: Column with the photos; default: one whose values are photos.

    Returns:
        As `pipelines.sources.parquet_file.read_parquet`.

    Raises:
        SourceError: it cannot be read, or no column holds photos; also later, as rows are read.
    """
    place = str(file.place) if isinstance(file.place, Path) else file.place
    try:
        data = lance_dataset(place, None, file.options)
        schema = data.schema
        photos = find_photo_column(
            schema, photo_column, file, lists_paths=False, peek=lambda path: _first_value(data, path)
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(file, error) from error
    if photos is None or "." in photos.path:
        held = ", ".join(schema.names[:20])[:300]
        raise SourceError(f"{file} has no column of photos but {held}: name it with --photo-column")
    columns, notes = map_columns(schema.names, file, needs_paths=False)
    columns = without_photos(columns, schema, photos)
    rows = _rows(file, data, schema.names, columns)
    located = (photo_row(row, file, photos.path, at, data.version) for at, row in enumerate(rows))
    return located, notes


def _first_value(data: Any, path: str) -> Any:
    name = path.partition(".")[0]
    if not data.count_rows():
        return None
    if is_blob(data.schema.field(name)):
        with data.take_blobs(name, indices=[0])[0] as blob:
            return blob.read()
    value = data.take([0], columns=[name]).column(0)[0].as_py()
    return value.get("bytes") if isinstance(value, dict) else value


def _rows(
    file: SourceFile, data: Any, header: list[str], columns: dict[str, list[Column]]
) -> Iterator[dict[str, Any]]:
    names = {header[column.place]: ours for ours, choices in columns.items() for column in choices}
    if not names:
        yield from ({} for _ in range(data.count_rows()))
        return
    try:
        for batch in data.scanner(
            columns=list(names), batch_size=BATCH_ROWS, scan_in_order=True
        ).to_batches():
            values: list[list[Any]] = [[]] * len(header)
            for name, array in zip(batch.schema.names, batch.columns, strict=True):
                text_bytes(array, file)
                values[header.index(name)] = cells_of(array, names[name])
            for cells in itertools.zip_longest(*values):
                yield pick(columns, cells)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: SourceFile, error: Exception) -> SourceError:
    text = clean(str(error))[:300]
    return SourceError(f"{file} cannot be read as a Lance data set ({text}): repair or convert it")
