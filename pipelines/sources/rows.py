"""Rows of a listing, each checked by itself: a bad one is rejected and the others stay."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.sources.paths import clean, contained
from pipelines.sources.standard_name import parse_standard_name
from pipelines.sources.values import NUMBER_RANGES, parse_number, parse_time, parse_zone

__all__ = ["list_table"]


def list_table(table: pa.Table, root: Path, id_prefix: str) -> Iterator[dict[str, Any]]:
    """Yield a row of `LISTING_SCHEMA` for each row of a table.

    Args:
        table: With columns named as in `pipelines.sources.columns`.
        root: Folder that the paths are relative to and must stay inside.
        id_prefix: Prefix of every image id.
    """
    seen: set[str] = set()
    for number, values in enumerate(row for batch in table.to_batches() for row in batch.to_pylist()):
        row = _list_row(values, root)
        image_id = id_prefix + (row.get("image_id") or f"row {number + 1}")
        if "rejected" not in row and image_id in seen:
            row |= {"rejected": "duplicate_id", "message": f"row {number + 1} repeats image_id {image_id}"}
        seen.add(image_id)
        yield row | {"image_id": image_id}


def _list_row(values: dict[str, Any], root: Path) -> dict[str, Any]:
    uri = str(values.get("uri") or "").strip()
    image_id = values.get("image_id")
    row: dict[str, Any] = {"uri": clean(uri), "image_id": None if image_id in (None, "") else str(image_id)}
    if not uri:
        return row | {"rejected": "bad_value", "message": "uri is empty"}
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", uri):
        return row | {"rejected": "unsupported_uri", "message": "only paths of local files are supported"}
    row |= contained(root / uri, root)
    if row["image_id"] is None:
        inside = "rejected" not in row
        row["image_id"] = Path(row["uri"]).relative_to(root).as_posix() if inside else clean(uri)
    try:
        _read_values(values, row)
    except ValueError as error:
        row.setdefault("rejected", "bad_value")
        row.setdefault("message", clean(str(error)))
    if "utm_e" not in row and "lat" not in row:
        row = parse_standard_name(Path(uri).name) | row
    return row


def _read_values(values: dict[str, Any], row: dict[str, Any]) -> None:
    """Parse position, heading and time into a row, as far as they are valid.

    Raises:
        ValueError: a value cannot be used; those before it are in the row.
    """
    for name in NUMBER_RANGES:
        number = parse_number(name, values.get(name))
        if number is not None:
            row[name] = number
    zone = values.get("utm_zone")
    if zone not in (None, ""):
        row["utm_zone"] = parse_zone(str(zone))
        if row["utm_zone"] is None:
            raise ValueError(f"utm_zone {zone!r} is not 1 to 60 with an optional band letter")
    time = parse_time(values.get("captured_at"))
    if time is not None:
        row["captured_at"] = time
    for first, second in (("lat", "lon"), ("utm_e", "utm_n")):
        if (first in row) != (second in row):
            raise ValueError(f"{first} and {second} must be given together")
