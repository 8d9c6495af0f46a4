"""One partition of a store's index, kept in memory and up to date while the store changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage.card_files import first_card
from storage.commit.ledger import Committed, read_committed
from storage.errors import CorruptStore, StoreError, StoreNotFound
from storage.layout import FEATURES_FOLDER, TABLE_FOLDER
from storage.search.hits import SearchHits
from storage.search.methods import SearchMethod, SearchMethodSetting
from storage.search.partition import WHOLE_INDEX, Partition
from storage.search.snapshot import Snapshot, newest_snapshot
from storage.uri import local_folder

__all__ = ["EXACT_ROWS", "MEMORY_BYTES", "IndexPartition", "VersionNotLoaded"]

MEMORY_BYTES = 4 << 30
# Twice as many take 26 ms per query on two cores (benchmarks/README.md, Search).
EXACT_ROWS = 50_000


class VersionNotLoaded(StoreError):
    """The requested version is not, or no longer, in memory."""

    reason = "version_not_held"


@dataclass(frozen=True)
class _Loaded:
    snapshot: Snapshot
    committed: Committed
    superseded_at: float | None = None


class IndexPartition:
    """Searches one partition of a store's rows, and moves to newer versions without ever being unready.

    A newer version is loaded completely before it takes over, and the previous one stays for a while, so that
    the partitions of one index can agree on a version. While both are loaded the memory use doubles.

    Attributes:
        card: The store's card.
        method: How the nearest descriptors are found; `auto` compares with every row of the partition up to
            `EXACT_ROWS`, beyond that uses an approximate index in memory, and LanceDB's index on disk where
            neither fits into the memory budget.
    """

    def __init__(
        self,
        store_uri: str,
        *,
        partition: Partition = WHOLE_INDEX,
        method: SearchMethodSetting = "auto",
        memory_bytes: int = MEMORY_BYTES,
        keep_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load the newest version.

        Args:
            store_uri: The store's folder.
            partition: Which of its rows.
            method: See the attribute.
            memory_bytes: Budget for this partition's index.
            keep_s: How long a version stays loaded after a newer one took over.
            clock: Seconds.

        Raises:
            StoreError: there is no store, or it cannot be read.
        """
        self.method: SearchMethodSetting = method
        self._folder = local_folder(store_uri)
        self._partition = partition
        self._memory_bytes = memory_bytes
        self._keep_s = keep_s
        self._clock = clock
        self._refreshing = threading.Lock()
        self.card = first_card(self._folder)
        self._loaded: tuple[_Loaded, ...] = (self._load(),)

    @property
    def snapshot(self) -> Snapshot:
        """The newest loaded version."""
        return self._loaded[-1].snapshot

    @property
    def loaded_versions(self) -> tuple[int, ...]:
        """Numbers of the loaded versions, the newest last."""
        return tuple(loaded.snapshot.version for loaded in self._loaded)

    def refresh(self) -> bool:
        """Move to the newest committed version; return whether there was another one.

        Raises:
            CardMismatch: the folder now contains another store.
            StoreError: the store cannot be read; the loaded versions stay.
        """
        with self._refreshing:
            first_card(self._folder).require_same(self.card)
            now = self._clock()
            if self._newest() == self._loaded[-1].committed:
                self._loaded = tuple(loaded for loaded in self._loaded if not self._expired(loaded, now))
                return False
            fresh = self._load()
            former = [
                _Loaded(loaded.snapshot, loaded.committed, loaded.superseded_at or self._clock())
                for loaded in self._loaded
            ]
            # A version number that does not increase means that the store was repaired or replaced.
            replaced = fresh.snapshot.version <= former[-1].snapshot.version
            former = [loaded for loaded in former if not replaced and not self._expired(loaded, now)]
            self._loaded = (*former, fresh)
            return True

    def search(
        self, descriptors: npt.NDArray[np.float32], *, k: int, version: int | None = None
    ) -> list[SearchHits]:
        """Search one version.

        Args:
            descriptors: (B, D) float32, unit L2 norm.
            k: Number of candidates per query, from this partition.
            version: Which version; None means the newest loaded one.

        Raises:
            VersionNotLoaded: `version` is not loaded.
            InvalidBatch: descriptors of another width, not finite, or not of unit norm; k below 1.
            CorruptStore: the index on disk cannot be read.
        """
        loaded = [entry.snapshot for entry in self._loaded]
        snapshot = next((each for each in reversed(loaded) if version in (None, each.version)), None)
        numbers = tuple(each.version for each in loaded)
        if snapshot is None:
            raise VersionNotLoaded(f"version {version} is not loaded: request one of {numbers}")
        results = snapshot.search(descriptors, k=k, method=self._method_for(snapshot.count))
        return [
            SearchHits(snapshot.version, snapshot.count, snapshot.degraded, hits, numbers) for hits in results
        ]

    def _load(self) -> _Loaded:
        before = self._newest()
        snapshot = newest_snapshot(self._folder, self.card, self._partition)
        snapshot.load(self._method_for(snapshot.count))
        # A commit may have come in between; the version says which of the two this snapshot is of.
        after = self._newest()
        return _Loaded(snapshot, after if after.version == snapshot.version else before)

    def _newest(self) -> Committed:
        committed = read_committed(self._folder)
        if committed is None:
            raise StoreNotFound(f"{self._folder} contains no finished store: run placeray index again")
        for name in (TABLE_FOLDER, FEATURES_FOLDER):
            if not (self._folder / name).is_dir():
                raise CorruptStore(f"{self._folder / name} is missing: restore the store from a backup")
        return committed

    def _method_for(self, rows: int) -> SearchMethod:
        if self.method != "auto":
            return self.method
        # Decided by the version alone, so that all partitions of an index decide alike.
        rows = -(-rows // self._partition.total)
        method: SearchMethod = "exact" if rows <= EXACT_ROWS else "ivf"
        stored = 2 if self.card.descriptor_dtype == "float16" else 4
        # Besides the descriptors as they are stored, up to half a byte of codes per dimension.
        bytes_each = self.card.descriptor_dim * (4 if method == "exact" else stored + 0.5)
        return method if rows * bytes_each <= self._memory_bytes else "lance"

    def _expired(self, loaded: _Loaded, now: float) -> bool:
        return loaded.superseded_at is not None and now - loaded.superseded_at > self._keep_s
