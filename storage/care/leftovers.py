"""Files of local features that no row uses: what there is, when it may go, and removing it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from storage.commit.lease import crashed_since
from storage.commit.ledger import manifests
from storage.durable import explain_write_errors
from storage.features.shards import shard_path
from storage.layout import FEATURES_FOLDER, is_shard_name, is_temporary_shard
from storage.table.lance_table import LanceTable

__all__ = [
    "LEFTOVER_AGE_S",
    "Leftovers",
    "find_leftovers",
    "measure_files",
    "removable_files",
    "remove_leftovers",
    "unreferenced_files",
    "used_shards",
]

# A younger file may belong to rows that a script has not committed yet, unless a writer that died left it.
LEFTOVER_AGE_S = 600.0


@dataclass(frozen=True)
class Leftovers:
    """Files that the newest version does not use: of stopped runs, or of rows that were replaced or deleted.

    Attributes:
        files: Their number.
        bytes: Their size.
        removable_bytes: Size of those that are old enough to be removed.
        removable_in_s: Seconds until all are old enough.
    """

    files: int = 0
    bytes: int = 0
    removable_bytes: int = 0
    removable_in_s: float = 0.0

    def __str__(self) -> str:
        if not self.files:
            return "none"
        text = (
            f"{_megabytes(self.bytes)} in {self.files} file{'' if self.files == 1 else 's'} that no row uses"
        )
        if self.removable_bytes:
            now = _megabytes(self.removable_bytes)
            text += f"; compact or the next index removes {now} now, except what older versions use"
        if self.removable_in_s > 0:
            rest = "the rest is " if self.removable_bytes else ""
            text += f"; {rest}removable in {max(1, round(self.removable_in_s / 60))} min"
        return text


def used_shards(table: LanceTable) -> set[str]:
    """Return the shards that the rows of this version use."""
    return {
        shard for batch in table.scan(["shard"]) for shard in pc.unique(batch["shard"]).to_pylist() if shard
    }


def unreferenced_files(folder: Path, used: set[str]) -> tuple[list[str], list[str]]:
    """Return the shards that are not in `used`, and the temporary files, by name in the features folder.

    Only files with names that `write_shard` gives: any other file is not placeray's to remove.
    """
    with os.scandir(folder / FEATURES_FOLDER) as entries:
        files = sorted(entry.name for entry in entries if not entry.is_dir(follow_symlinks=False))
    shards = [name.removesuffix(".parquet") for name in files if name.endswith(".parquet")]
    temporary = [name for name in files if is_temporary_shard(name)]
    return [shard for shard in shards if is_shard_name(shard) and shard not in used], temporary


def find_leftovers(folder: Path, used: set[str], *, min_age_s: float = LEFTOVER_AGE_S) -> Leftovers:
    """Measure what the newest version does not use; needs no lease.

    Args:
        folder: The store's folder.
        used: The shards that the newest version uses.
        min_age_s: Age above which files may be removed.
    """
    return measure_files(folder, *unreferenced_files(folder, used), min_age_s=min_age_s)


def measure_files(
    folder: Path, shards: Sequence[str], temporary: Sequence[str], *, min_age_s: float = LEFTOVER_AGE_S
) -> Leftovers:
    """Measure some shards and temporary files of the features folder."""
    paths = [shard_path(folder, shard) for shard in shards]
    sizes: list[tuple[int, float]] = []
    now, since = time.time(), crashed_since(folder)
    for path in paths + [folder / FEATURES_FOLDER / name for name in temporary]:
        try:
            state = path.lstat()
        except FileNotFoundError:  # a writer is at work
            continue
        left_by_crash = since is not None and state.st_mtime >= since
        sizes.append((state.st_size, 0.0 if left_by_crash else min_age_s - (now - state.st_mtime)))
    return Leftovers(
        files=len(sizes),
        bytes=sum(size for size, _ in sizes),
        removable_bytes=sum(size for size, wait_s in sizes if wait_s <= 0),
        removable_in_s=round(max([0.0, *(wait_s for _, wait_s in sizes)]), 1),
    )


def removable_files(
    folder: Path, table: LanceTable, *, min_age_s: float, since: float | None = None
) -> list[Path]:
    """Return the files that no version uses, of those older than `min_age_s` or written after `since`.

    Args:
        folder: The store's folder.
        table: The newest version.
        min_age_s: Age in seconds.
        since: Unix time from which on no writer is alive that could still commit a file.
    """
    shards, temporary = unreferenced_files(folder, used_shards(table))
    limit = time.time() - min_age_s

    def due(path: Path) -> bool:
        written = path.lstat().st_mtime
        return written <= limit or (since is not None and written >= since)

    candidates = {shard: shard_path(folder, shard) for shard in shards}
    candidates = {shard: path for shard, path in candidates.items() if due(path)}
    for version in reversed(manifests(folder)):
        if not candidates:
            break
        old = LanceTable.open(folder, version=version)
        for start in range(0, len(candidates), 1000):
            batch = sorted(candidates)[start : start + 1000]
            for shard in set(old.find("shard", batch, ["shard"])["shard"].to_pylist()):
                candidates.pop(shard, None)
    files = [folder / FEATURES_FOLDER / name for name in temporary]
    return [*candidates.values(), *(path for path in files if due(path))]


def remove_leftovers(
    folder: Path, table: LanceTable, *, min_age_s: float = LEFTOVER_AGE_S, since: float | None = None
) -> tuple[tuple[str, ...], int]:
    """Remove what `removable_files` returns; the caller holds the lease.

    Returns:
        The names of the removed files, and their size in bytes.
    """
    paths = removable_files(folder, table, min_age_s=min_age_s, since=since)
    freed = sum(path.lstat().st_size for path in paths)
    with explain_write_errors(folder / FEATURES_FOLDER, 0):
        for path in paths:
            path.unlink()
    return tuple(path.name for path in paths), freed


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 10_000_000 else f"{size / 1e6:.0f} MB"
