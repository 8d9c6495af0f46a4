"""Rows on local disk, divided into partitions that fit into memory one by one.

Each partition is a stream of Arrow record batches in a file of its own, in the system's temporary folder;
`TMPDIR` names another one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from storage.durable import explain_write_errors

__all__ = ["Partitions", "hashed"]

COLLECTED_ROWS = 20_000  # before they are divided: small batches cost more than their rows


def hashed(values: pa.ChunkedArray, count: int) -> np.ndarray:
    """Return for each text the partition that it belongs to, below `count`: equal texts belong together."""
    texts = (("" if text is None else text).encode() for text in values.to_pylist())
    digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, np.uint64) % np.uint64(count)


class Partitions:
    """Files of rows by number of their partition.

    Args:
        folder: Where the files are made; it exists.
        name: Of the files.
        schema: Of the rows.

    Raises:
        OutOfSpace: the disk is full; every method raises it.
    """

    def __init__(self, folder: Path, name: str, schema: pa.Schema) -> None:
        self._folder, self._name, self._schema = folder, name, schema
        self._writers: dict[int, Any] = {}
        self._collected: list[tuple[pa.Table, np.ndarray]] = []
        self._waiting = 0
        self._options = pa.ipc.IpcWriteOptions(compression="lz4")

    def add(self, rows: pa.Table, partitions: np.ndarray) -> None:
        """Take rows, with the partition of each."""
        self._collected.append((rows.select(self._schema.names), partitions))
        self._waiting += rows.num_rows
        if self._waiting >= COLLECTED_ROWS:
            self._flush()

    def finish(self) -> None:
        """Write what was taken; nothing can be added afterwards."""
        self._flush()
        for writer in self._writers.values():
            with explain_write_errors(self._folder, 0):
                writer.close()

    def numbers(self) -> Iterable[int]:
        """Return the numbers of the partitions with rows, in ascending order."""
        return sorted(self._writers)

    def read(self, number: int) -> pa.Table:
        """Return the rows of a partition, in the order in which they were added, and remove its file."""
        path = self._path(number)
        if not path.exists():
            return self._schema.empty_table()
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
            rows = stream.read_all()
        path.unlink()
        return rows

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()

    def __enter__(self) -> Partitions:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._name}-{number:06}.arrows"

    def _flush(self) -> None:
        if not self._waiting:
            return
        rows = pa.concat_tables([table.cast(self._schema) for table, _ in self._collected]).combine_chunks()
        partitions = np.concatenate([numbers for _, numbers in self._collected])
        self._collected, self._waiting = [], 0
        order = np.argsort(partitions, kind="stable")
        present, starts = np.unique(partitions[order], return_index=True)
        ordered = rows.take(pa.array(order))
        ends = [*starts[1:].tolist(), len(order)]
        with explain_write_errors(self._folder, rows.nbytes):
            for number, start, end in zip(present.tolist(), starts.tolist(), ends, strict=True):
                if number not in self._writers:
                    sink = pa.OSFile(os.fspath(self._path(number)), "wb")
                    self._writers[number] = _Writer(sink, self._schema, self._options)
                self._writers[number].write(ordered.slice(start, end - start))


class _Writer:
    """A stream of record batches in a file."""

    def __init__(self, sink: Any, schema: pa.Schema, options: Any) -> None:
        self._sink = sink
        self._stream = pa.ipc.new_stream(sink, schema, options=options)
        self._open = True

    def write(self, rows: pa.Table) -> None:
        self._stream.write_table(rows)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._stream.close()
            self._sink.close()
