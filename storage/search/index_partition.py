"""One partition of a store's index, kept in memory and up to date while the store changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType

import numpy as np
import numpy.typing as npt

from storage.card import Card
from storage.card_files import first_card
from storage.commit.ledger import Committed
from storage.commit.pointed_version import pointed_version
from storage.errors import CorruptStore, StoreError, StoreNotFound
from storage.layout import FEATURES_FOLDER, TABLE_FOLDER
from storage.objects.location import open_location
from storage.search.hits import SearchHits
from storage.search.methods import SearchMethod, SearchMethodSetting
from storage.search.partition import WHOLE_INDEX, Partition
from storage.search.row_filter import RowFilter
from storage.search.snapshot import Snapshot, newest_snapshot

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

    A newer version is ready before it takes over, and the previous one stays for a while, so that the
    partitions of one index can agree on a version. Both share the descriptors of the rows that they
    have in common.

    A newer version may have another card, with descriptors of another aggregation, but never another model or
    other local features. With descriptors of another aggregation it is loaded as a whole, and while both are
    loaded the memory use doubles.

    Attributes:
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
        at: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load the newest version.

        Args:
            store_uri: The store's folder.
            partition: Which of its rows.
            method: See the attribute.
            memory_bytes: Budget for this partition's index.
            keep_s: How long a version stays loaded after a newer one took over.
            at: A tag: search the version that it names, and follow the tag.
            clock: Seconds.

        Raises:
            StoreError: there is no store, or it cannot be read.
        """
        self.method: SearchMethodSetting = method
        self._folder = open_location(store_uri)
        self._partition = partition
        self._memory_bytes = memory_bytes
        self._keep_s = keep_s
        self._at = at
        self._clock = clock
        self._refreshing = threading.Lock()
        first_card(self._folder)  # of the reasons why a folder cannot be used, the plainest first
        self._loaded: tuple[_Loaded, ...] = ()
        self._loaded = (self._load(),)

    @property
    def snapshot(self) -> Snapshot:
        """The newest loaded version."""
        return self._loaded[-1].snapshot

    @property
    def card(self) -> Card:
        """The card of the newest loaded version."""
        return self.snapshot.card

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
            self.card.require_same_features(first_card(self._folder))
            now = self._clock()
            if self._newest() == self._loaded[-1].committed:
                self._loaded = tuple(loaded for loaded in self._loaded if not self._expired(loaded, now))
                return False
            fresh = self._load()
            self.card.require_same_features(fresh.snapshot.card)
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
        self,
        descriptors: npt.NDArray[np.float32],
        *,
        k: int,
        version: int | None = None,
        aggregation_sha256: str | EllipsisType | None = ...,
        codes: npt.NDArray[np.uint8] | None = None,
        within: RowFilter | None = None,
    ) -> list[SearchHits]:
        """Search one version.

        Args:
            descriptors: (B, D) float32, unit L2 norm.
            k: Number of candidates per query, from this partition.
            version: Which version; None means the newest loaded one.
            aggregation_sha256: What made the descriptors, see `Card`; only versions of the same are searched.
                By default it is not compared.
            codes: (B, code_bits / 8) uint8, for search by codes.
            within: Which rows may be found; default: all.

        Raises:
            VersionNotLoaded: `version` is not loaded, or none of this aggregation is.
            InvalidBatch: descriptors of another width, not finite, or not of unit norm; k below 1.
            CorruptStore: the index on disk cannot be read.
        """
        loaded = [entry.snapshot for entry in self._loaded]
        numbers = tuple(each.version for each in loaded)
        fitting = [each for each in loaded if aggregation_sha256 in (..., each.card.aggregation_sha256)]
        snapshot = next((each for each in reversed(fitting) if version in (None, each.version)), None)
        if snapshot is None:
            made = (
                "" if aggregation_sha256 is ... else f" with descriptors of aggregation {aggregation_sha256}"
            )
            wanted = "a version" if version is None else f"version {version}"
            raise VersionNotLoaded(f"{wanted}{made} is not loaded: request one of {numbers}")
        method = self.method_for(snapshot)
        results = snapshot.search(descriptors, k=k, method=method, codes=codes, within=within)
        left = None if within is None else snapshot.considered(within, method)
        return [
            SearchHits(
                *(snapshot.version, snapshot.count, snapshot.degraded, hits, numbers, snapshot.card),
                considered=left,
                method=method,
            )
            for hits in results
        ]

    def _load(self) -> _Loaded:
        before = self._newest()
        former = self._loaded[-1].snapshot if self._loaded else None
        snapshot = newest_snapshot(self._folder, self._partition, former=former, at=self._at)
        snapshot.load(self.method_for(snapshot))
        # A commit may have come in between; the version says which of the two this snapshot is of.
        after = self._newest()
        return _Loaded(snapshot, after if after.version == snapshot.version else before)

    def _newest(self) -> Committed:
        known = self._loaded[-1].committed if self._loaded else None
        committed = pointed_version(self._folder, self._at, known)
        if committed is None:
            raise StoreNotFound(f"{self._folder} contains no finished store: run placeray index again")
        for name in (TABLE_FOLDER, FEATURES_FOLDER):
            path = self._folder / name
            if isinstance(path, Path) and not path.is_dir():  # a bucket has no folders
                raise CorruptStore(f"{path} is missing: restore the store from a backup")
        return committed

    def method_for(self, snapshot: Snapshot) -> SearchMethod:
        """Return how a version is searched: the method that was chosen, or what `auto` makes of its size."""
        if self.method != "auto":
            return self.method
        # Decided by the version alone, so that all partitions of an index decide alike.
        rows, card = -(-snapshot.count // self._partition.total), snapshot.card
        if card.code_bits is not None:
            return "codes"
        method: SearchMethod = "exact" if rows <= EXACT_ROWS else "ivf"
        stored = 2 if card.descriptor_dtype == "float16" else 4
        # Approximate: descriptors as they are stored, codes of up to two bits per dimension, row numbers.
        bytes_each = card.descriptor_dim * (4 if method == "exact" else stored + 0.25)
        bytes_each += 0 if method == "exact" else 8
        return method if rows * bytes_each <= self._memory_bytes else "lance"

    def _expired(self, loaded: _Loaded, now: float) -> bool:
        return loaded.superseded_at is not None and now - loaded.superseded_at > self._keep_s
