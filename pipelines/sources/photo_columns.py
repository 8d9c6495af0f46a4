"""The column of a table that holds the photos themselves, and what their rows are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa

from models.images.signatures import recognise
from pipelines.sources.errors import SourceError

__all__ = ["PhotoColumn", "find_photo_column"]

NAMES = ("image", "img", "photo", "picture", "jpg", "jpeg", "png", "webp", "bytes", "content", "data")
_BYTES, _PATH = "bytes", "path"  # of the structs that Hugging Face writes


class PhotoColumn(NamedTuple):
    """A column of photos.

    Attributes:
        path: Its name, with that of a field inside after a dot.
        names: The same of the column with the names of the files, or None.
    """

    path: str
    names: str | None = None


def find_photo_column(
    schema: pa.Schema, requested: str | None, name: object, *, lists_paths: bool, peek: Callable[[str], Any]
) -> PhotoColumn | None:
    """Return the column with the photos of a table; None where its rows name files instead.

    Args:
        schema: Of the table.
        requested: The column that the user names, or None.
        name: Of the file, for messages.
        lists_paths: Whether it has a text column with paths, which counts unless a column is requested.
        peek: Returns the first value of a column, or None.

    Raises:
        SourceError: the requested column is not one of photos.
    """
    if requested is not None:
        if (column := _of_field(schema, requested)) is None:
            held = ", ".join(schema.names[:20])[:300]
            raise SourceError(
                f"{name} has no binary column {requested!r} but {held}: name the one with the photos"
            )
        return column
    if lists_paths:
        return None
    candidates = [found for field in schema if (found := _of_field(schema, field.name)) is not None]
    candidates.sort(key=lambda found: _rank(found.path))
    for column in candidates:
        first = peek(column.path)
        if isinstance(first, bytes) and recognise(first) is not None:
            return column
    return None


def _of_field(schema: pa.Schema, name: str) -> PhotoColumn | None:
    if name not in schema.names or schema.names.count(name) > 1 or "." in name:
        return None
    kind = schema.field(name).type
    if _is_binary(kind) or str(kind).startswith("extension<lance.blob"):
        return PhotoColumn(name)
    if pa.types.is_struct(kind):
        fields = {kind.field(at).name: kind.field(at).type for at in range(kind.num_fields)}
        if _BYTES in fields and _is_binary(fields[_BYTES]):
            return PhotoColumn(f"{name}.{_BYTES}", f"{name}.{_PATH}" if _PATH in fields else None)
    return None


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _rank(path: str) -> int:
    stem = path.partition(".")[0].lower()
    return NAMES.index(stem) if stem in NAMES else len(NAMES)
