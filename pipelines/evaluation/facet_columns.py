"""Columns of a listing that say under which condition a photo was taken."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

__all__ = ["read_facet_columns"]

_COLUMNS = {
    "condition": ("condition", "conditions", "subset"),
    "light": ("light", "timeofday", "daytime", "daynight"),
    "season": ("season",),
    "weather": ("weather",),
    "view": ("view", "viewdirection", "viewpoint"),
    "city": ("city", "town"),
    "night": ("night", "isnight"),  # true or false
}
_KIND_OF = {name: kind for kind, names in _COLUMNS.items() for name in names}
_TRUE, _FALSE = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})
_MAX_BYTES, _MAX_LENGTH = 256 << 20, 60


def read_facet_columns(path: Path, rows: int) -> list[dict[str, str]]:
    """Return the conditions of each row of a listing by kind; empty where it has no such column.

    Args:
        path: CSV, TSV or Parquet listing.
        rows: How many rows its photos have; columns of another length cannot be told apart and are left out.
    """
    read = list(_parquet(path) if path.suffix.lower() == ".parquet" else _csv(path))
    return read if len(read) == rows else [{} for _ in range(rows)]


def _parquet(path: Path) -> Iterable[dict[str, str]]:
    file = pq.ParquetFile(path)
    names = [name for name in file.schema_arrow.names if _key(name) in _KIND_OF]
    if not names:
        return []
    return [_facets(row.items()) for row in file.read(names).to_pylist()]


def _csv(path: Path) -> Iterable[dict[str, str]]:
    if path.stat().st_size > _MAX_BYTES:
        return []
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    header = text.partition("\n")[0]
    separator = max((",", ";", "\t", "|"), key=header.count)
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        if not any(_key(name) in _KIND_OF for name in rows.fieldnames or ()):
            return []
        return [_facets((name, value) for name, value in row.items() if name) for row in rows]
    except csv.Error:
        return []


def _key(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _facets(cells: Iterable[tuple[str, Any]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in cells:
        kind, text = _KIND_OF.get(_key(name)), str("" if value is None else value).strip().lower()
        if kind is None or not text:
            continue
        if kind != "night":
            found[kind] = text[:_MAX_LENGTH]
        elif text in _TRUE | _FALSE:
            found["light"] = "night" if text in _TRUE else "day"
    return found
