"""The rejected rows of an index run: some thousand in memory, more in sorted files on local disk."""

from __future__ import annotations

import heapq
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.durable import explain_write_errors

__all__ = ["RejectedRows"]

HELD_ROWS = 50_000
BATCH_ROWS = 1_000
_COLUMNS = ("image_id", "uri", "rejected", "message")
_SCHEMA = pa.schema([(name, pa.string()) for name in _COLUMNS])


class RejectedRows:
    """Collects rows; its files are removed with it."""

    def __init__(self) -> None:
        self._held: list[dict[str, Any]] = []
        self._runs: list[Path] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, rows: pa.Table) -> None:
        """Take rejected rows.

        Raises:
            OutOfSpace: the temporary folder is full.
        """
        self._held += rows.select(_COLUMNS).to_pylist()
        self._count += rows.num_rows
        if len(self._held) >= HELD_ROWS:
            self._spill()

    def ordered(self) -> Iterator[dict[str, Any]]:
        """Yield image_id, uri, rejected and message of all rows in the order of their ids."""
        runs = [_read(path) for path in self._runs]
        yield from heapq.merge(*runs, sorted(self._held, key=_image_id), key=_image_id)

    def _spill(self) -> None:
        if not self._runs:
            self._folder = Path(tempfile.mkdtemp(prefix="placeray-rejected-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        path = self._folder / f"{len(self._runs):06}.arrows"
        table = pa.Table.from_pylist(sorted(self._held, key=_image_id), schema=_SCHEMA)
        with (
            explain_write_errors(path, table.nbytes),
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_stream(file, _SCHEMA) as stream,
        ):
            stream.write_table(table, max_chunksize=BATCH_ROWS)
        self._runs.append(path)
        self._held = []


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
        for batch in stream:
            yield from batch.to_pylist()


def _image_id(row: dict[str, Any]) -> str:
    return str(row["image_id"])
