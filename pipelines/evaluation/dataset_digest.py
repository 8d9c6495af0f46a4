"""The digest of a data set: the same for the same photos and positions on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from storage.position import POSITION_COLUMNS

__all__ = ["dataset_digest"]


def dataset_digest(queries: Iterable[Mapping[str, Any]], database: pa.Table) -> str:
    """Return the SHA-256 over content and position of all photos, whatever their names and order.

    Args:
        queries: Rows with `sha256` and `POSITION_COLUMNS`.
        database: Rows of a store.
    """
    names = [name for name in ("sha256", *POSITION_COLUMNS) if name in database.column_names]
    stored = database.select(names).to_pylist()
    lines = sorted([_line("query", row) for row in queries] + [_line("database", row) for row in stored])
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _line(side: str, row: Mapping[str, Any]) -> str:
    """Return a photo in words: digest, then metres to the centimetre or degrees to seven decimals."""
    if row.get("utm_e") is not None:
        place = f"{row['utm_e']:.2f} {row['utm_n']:.2f} {row.get('utm_zone') or ''}"
    elif row.get("lat") is not None:
        place = f"{row['lat']:.7f} {row['lon']:.7f}"
    else:
        place = ""
    return f"{side} {row.get('sha256') or ''} {place}"
