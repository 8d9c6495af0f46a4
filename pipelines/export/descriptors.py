"""Writes the descriptors of a store for other programs: as Parquet, or as a NumPy array beside a table."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.evaluation.descriptors import descriptor_matrix, stored_descriptors
from pipelines.export.errors import ExportRefused
from storage.durable import replace_file
from storage.store import Store
from storage.text import spreadsheet_safe

__all__ = ["export_descriptors"]

_COLUMNS = ("image_id", "uri", "lat", "lon", "utm_e", "utm_n", "utm_zone")


def export_descriptors(store_uri: str, out: str | Path) -> dict[str, Any]:
    """Write the descriptors of all rows of a store, sorted by `image_id`.

    A `.npy` file is (N, D) float32; the table `OUT.csv` beside it has `image_id`, `uri` and position of each
    row. A `.parquet` file has these columns and `descriptor`, a list of D float32.

    Args:
        store_uri: The store.
        out: The file to write.

    Returns:
        `out`, `table` (None for Parquet), `rows`, `width`, `store_version` and `damaged`, the rows left out.

    Raises:
        ExportRefused: the file has another ending, or the store is empty.
        StoreError: the store cannot be read.
        OutOfSpace, NotWritable: the file cannot be written.
    """
    path = Path(out).expanduser()
    if path.suffix.lower() not in (".npy", ".parquet"):
        raise ExportRefused(f"--out {out} is none of .npy, .parquet and .onnx: give one of these endings")
    store = Store.open(store_uri)
    rows = stored_descriptors(store).sort_by("image_id")
    if not rows.num_rows:
        raise ExportRefused(f"the store {store.uri} is empty: index images into it first")
    descriptors = descriptor_matrix(rows)
    table = rows.select(_COLUMNS)
    beside = None
    if path.suffix.lower() == ".npy":
        beside = path.with_name(f"{path.name}.csv")
        _write_npy(path, descriptors)
        _write_csv(beside, table)
    else:
        _write_parquet(path, table, descriptors)
    return {
        "out": str(path),
        "table": None if beside is None else str(beside),
        "rows": len(descriptors),
        "width": descriptors.shape[1],
        "store_version": store.version,
        "damaged": store.count - len(descriptors),
    }


def _write_npy(path: Path, descriptors: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, descriptors)
    replace_file(path, buffer.getvalue())


def _write_csv(path: Path, table: pa.Table) -> None:
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(table.column_names)
    for row in table.to_pylist():
        rows.writerow([spreadsheet_safe(cell) for cell in row.values()])
    replace_file(path, text.getvalue().encode("utf-8", "replace"))


def _write_parquet(path: Path, table: pa.Table, descriptors: np.ndarray) -> None:
    flat = pa.array(descriptors.reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, descriptors.shape[1])
    buffer = pa.BufferOutputStream()
    pq.write_table(table.append_column("descriptor", column), buffer)
    replace_file(path, buffer.getvalue().to_pybytes())
