"""Rows whose photo lies in a container: a tar file, or a table with a binary column."""

from __future__ import annotations

from typing import Any

from pipelines.sources.numbers import is_missing
from pipelines.sources.source_file import SourceFile
from storage.photos.uris import ByteSpan, TableCell, with_part

__all__ = ["member_row", "photo_row"]


def photo_row(
    row: dict[str, Any], file: SourceFile, column: str, number: int, version: int | None = None
) -> dict[str, Any]:
    """Return a row of a table whose photo is one of its values.

    Args:
        row: Values by our names; `uri`, if there is one, is a name and not where the photo lies.
        file: The table.
        column: Where the photos are, see `storage.photos.uris.TableCell`.
        number: Of the row, from 0.
        version: Of a Lance data set.

    Returns:
        The row with `photo`, the URI of the photo, and `photo_id`, its id if it has no other.
    """
    named = row.get("uri")
    name = "" if named is None or is_missing(named) else str(named)
    uri = with_part(file.container, TableCell(number, column, version))
    return row | {"uri": name, "photo": uri, "photo_id": name or f"{file.id_part}/{number}"}


def member_row(row: dict[str, Any], file: SourceFile, name: str, span: ByteSpan) -> dict[str, Any]:
    """Return a row of a tar file, like `photo_row`; `name` is that of the member."""
    uri = with_part(file.container, span)
    return row | {"uri": name, "photo": uri, "photo_id": f"{file.id_part}/{name}"}
