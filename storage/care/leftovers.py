"""Files of local features that no row uses: what there is, when it may go, and removing it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from storage.commit.leases import crashed_since
from storage.commit.ledger import manifests
from storage.layout import FEATURES_FOLDER, is_shard_name, is_temporary_shard, shard_file_name
from storage.objects.files import FileState, Location, file_states, remove_files
from storage.table.open_table import Table, open_table

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


def used_shards(table: Table) -> set[str]:
    """Return the shards that the rows of this version use."""
    return {
        shard for batch in table.scan(["shard"]) for shard in pc.unique(batch["shard"]).to_pylist() if shard
    }


def unreferenced_files(folder: Location, used: set[str]) -> tuple[list[str], list[str]]:
    """Return the shards that are not in `used`, and the temporary files, by name in the features folder.

    Only files with names that `write_shard` gives: any other file is not placeray's to remove.
    """
    files = sorted(file_states(folder / FEATURES_FOLDER))
    shards = [name.removesuffix(".parquet") for name in files if name.endswith(".parquet")]
    temporary = [name for name in files if is_temporary_shard(name)]
    return [shard for shard in shards if is_shard_name(shard) and shard not in used], temporary


def find_leftovers(folder: Location, used: set[str], *, min_age_s: float = LEFTOVER_AGE_S) -> Leftovers:
    """Measure what the newest version does not use; needs no lease.

    Args:
        folder: The store's folder.
        used: The shards that the newest version uses.
        min_age_s: Age above which files may be removed.
    """
    return measure_files(folder, *unreferenced_files(folder, used), min_age_s=min_age_s)


def measure_files(
    folder: Location, shards: Sequence[str], temporary: Sequence[str], *, min_age_s: float = LEFTOVER_AGE_S
) -> Leftovers:
    """Measure some shards and temporary files of the features folder."""
    states = file_states(folder / FEATURES_FOLDER)
    names = [*(shard_file_name(shard) for shard in shards), *temporary]
    now, since = time.time(), crashed_since(folder)
    sizes: list[tuple[int, float]] = []
    for state in (states.get(name) for name in names):
        if state is not None:  # else a writer is at work
            left_by_crash = since is not None and state.modified_s >= since
            sizes.append((state.size, 0.0 if left_by_crash else min_age_s - (now - state.modified_s)))
    return Leftovers(
        files=len(sizes),
        bytes=sum(size for size, _ in sizes),
        removable_bytes=sum(size for size, wait_s in sizes if wait_s <= 0),
        removable_in_s=round(max([0.0, *(wait_s for _, wait_s in sizes)]), 1),
    )


def removable_files(
    folder: Location, table: Table, *, min_age_s: float, since: float | None = None
) -> dict[str, FileState]:
    """Return the files that no version uses, of those older than `min_age_s` or written after `since`.

    Args:
        folder: The store's folder.
        table: The newest version.
        min_age_s: Age in seconds.
        since: Unix time from which on no writer is alive that could still commit a file.

    Returns:
        Their states by their names in the features folder.
    """
    states = file_states(folder / FEATURES_FOLDER)
    shards, temporary = unreferenced_files(folder, used_shards(table))
    limit = time.time() - min_age_s

    def due(name: str) -> bool:
        written = states[name].modified_s if name in states else math.inf
        return written <= limit or (since is not None and since <= written < math.inf)

    candidates = {shard for shard in shards if due(shard_file_name(shard))}
    for version in reversed(manifests(folder)):
        if not candidates:
            break
        old = open_table(folder, version=version)
        asked = sorted(candidates)
        for start in range(0, len(asked), 1000):
            found = old.find("shard", asked[start : start + 1000], ["shard"])["shard"].to_pylist()
            candidates.difference_update(found)
    names = [shard_file_name(shard) for shard in sorted(candidates)]
    names += [name for name in temporary if due(name)]
    return {name: states[name] for name in names}


def remove_leftovers(
    folder: Location, table: Table, *, min_age_s: float = LEFTOVER_AGE_S, since: float | None = None
) -> tuple[tuple[str, ...], int]:
    """Remove what `removable_files` returns; the caller holds the lease.

    Returns:
        The names of the removed files, and their size in bytes.
    """
    files = removable_files(folder, table, min_age_s=min_age_s, since=since)
    remove_files([folder / FEATURES_FOLDER / name for name in files])
    return tuple(files), sum(state.size for state in files.values())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 10_000_000 else f"{size / 1e6:.0f} MB"
