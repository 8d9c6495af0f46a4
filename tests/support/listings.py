"""Small listings for tests, as CSV and as Parquet, and the rows that come of them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sources import list_source, split_notes

__all__ = ["CONTAINERS", "Write", "listed", "names", "reasons", "write_csv", "write_parquet"]

Write = Callable[[Path, dict[str, list[Any]]], Path]


def listed(path: Path, **options: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = list_source(path, **options).to_pylist()
    return rows


def reasons(row: dict[str, Any]) -> list[str]:
    return [note.reason for note in split_notes(row["notes"])]


def write_csv(path: Path, columns: dict[str, list[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(zip(*columns.values(), strict=True))
    return path


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def names(count: int) -> list[str]:
    return [f"{i}.jpg" for i in range(count)]


CONTAINERS = pytest.mark.parametrize(
    ("write", "suffix"), [(write_csv, "csv"), (write_parquet, "parquet")], ids=["csv", "parquet"]
)
