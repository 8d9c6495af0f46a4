"""Open shard files, and the row tables of the shards that were read most recently."""

from __future__ import annotations

import functools
import os
import threading
from array import array
from collections import OrderedDict
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from storage.errors import CorruptStore
from storage.features.row_pages import page_positions
from storage.features.row_table import RowTable
from storage.layout import FEATURES_FOLDER, shard_file_name
from storage.regular_files import open_regular

__all__ = ["READ_ERRORS", "OpenFiles", "OpenShards", "Shard", "ShardTables"]

READ_ERRORS = (OSError, ValueError, OverflowError, pa.ArrowException, CorruptStore)
_MAX_SHARDS = 4096


class OpenFiles(dict[str, int]):
    """File descriptors of shards by name, opened on first use and closed at the end of the `with` block."""

    def __init__(self, folder: Path) -> None:
        """Open shards of the store in `folder`."""
        super().__init__()
        self._prefix = os.path.join(folder, FEATURES_FOLDER, "")

    def __missing__(self, shard: str) -> int:
        self[shard] = fd = open_regular(self._prefix + shard_file_name(shard))
        return fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self.values():
            os.close(fd)


class Shard:
    """The row table of a shard and the positions of its pages.

    Attributes:
        table: From the footer; a shard without one starts with a table of unknown rows.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self.table = RowTable.read(fd) or RowTable(len(self.positions))

    @functools.cached_property
    def positions(self) -> np.ndarray:
        """As `page_positions`."""
        return page_positions(self._path)


class ShardTables:
    """An LRU cache of shards by name; safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        """Cache shards of the store in `folder`."""
        self._folder = folder
        self._shards: OrderedDict[str, Shard] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, name: str) -> bool:
        return name in self._shards

    def __len__(self) -> int:
        return len(self._shards)

    def get(self, name: str, files: OpenFiles) -> Shard:
        """Return a shard, reading its footer if it is not cached.

        Raises:
            OSError: the file cannot be read.
            ArrowException: it is not a Parquet file.
            CorruptStore: the name is not one that `write_shard` could have given.
        """
        with self._lock:
            if name in self._shards:
                self._shards.move_to_end(name)
                return self._shards[name]
        shard = Shard(self._folder / FEATURES_FOLDER / shard_file_name(name), files[name])
        with self._lock:
            self._shards[name] = shard
            while len(self._shards) > _MAX_SHARDS:
                self._shards.popitem(last=False)
        return shard


class OpenShards(dict[str, tuple[int, "array[int]", "array[int]"]]):
    """File descriptor, row starts and row checksums of shards by name, looked up on first use.

    Both arrays are empty if the shard cannot be read.
    """

    def __init__(self, tables: ShardTables, files: OpenFiles) -> None:
        super().__init__()
        self._tables, self._files = tables, files

    def __missing__(self, name: str) -> tuple[int, array[int], array[int]]:
        try:
            fd, table = self._files[name], self._tables.get(name, self._files).table
        except READ_ERRORS:
            fd, table = -1, RowTable(0)
        self[name] = entry = fd, table.starts, table.checksums
        return entry
