"""Stored rows with given positions, and SQL conditions asked of a real LanceDB table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa

from storage.position import Position

__all__ = ["held_by_sql", "rows_at", "rows_with"]


def rows_at(positions: Sequence[Position]) -> pa.Table:
    """Return rows with these positions, in the types of a store."""
    columns = {
        name: pa.array([getattr(position, name) for position in positions], pa.float64())
        for name in ("lat", "lon", "utm_e", "utm_n")
    }
    zones = pa.array([position.utm_zone for position in positions], pa.string())
    return pa.table({**columns, "utm_zone": zones})


def rows_with(name: str, values: Sequence[Any], kind: pa.DataType) -> pa.Table:
    """Return rows of one column."""
    return pa.table({name: pa.array(values, kind)})


def held_by_sql(folder: Path, rows: pa.Table, condition: str) -> list[bool]:
    """Return for which rows LanceDB finds a condition true."""
    numbered = rows.append_column("number", pa.array(range(len(rows)), pa.int64()))
    table = lancedb.connect(str(folder)).create_table("rows", numbered, mode="overwrite")
    found = set(table.search().where(condition).select(["number"]).to_arrow()["number"].to_pylist())
    return [number in found for number in range(len(rows))]
