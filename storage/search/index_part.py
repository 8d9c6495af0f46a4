"""One part of a store's index, held ready for search while the store moves on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from storage.card import Card
from storage.commit.ledger import Committed, read_committed
from storage.durable import local_folder
from storage.errors import CorruptStore, StoreError, StoreNotFound
from storage.features.shards import FEATURES_FOLDER
from storage.records import Candidate
from storage.search.searchers import WHOLE, Method, Part
from storage.search.view import View, newest_view
from storage.table.vectors import TABLE_FOLDER

__all__ = ["EXACT_ROWS", "MEMORY_BYTES", "Choice", "Found", "IndexPart", "VersionNotHeld", "merge"]

MEMORY_BYTES = 4 << 30
# Twice as many take 26 ms a query on two cores (benchmarks/README.md, Search).
EXACT_ROWS = 50_000
Choice = Literal["auto", "exact", "ivf", "lance"]


class VersionNotHeld(StoreError):
    """The version asked for is not, or no longer, in memory."""

    reason = "version_not_held"


@dataclass(frozen=True)
class Found:
    """What one part of the index found for one query.

    Attributes:
        version: The store version that was searched.
        rows: Rows of that version, in all parts.
        degraded: Whether damaged rows had to be left out.
        hits: Best first, equal ones by image_id.
        held: Every version that this part could have answered from.
    """

    version: int
    rows: int
    degraded: bool
    hits: list[Candidate]
    held: tuple[int, ...]


@dataclass(frozen=True)
class _Held:
    view: View
    committed: Committed
    superseded_at: float | None = None


class IndexPart:
    """Searches one part of a store's rows, and moves to newer versions without ever being unready.

    A newer version is loaded whole before it takes over, and the one before stays for a while, so that the
    parts of one index can agree on a version. While both are held the part needs twice its memory.

    Attributes:
        card: What made the store's vectors.
        method: How the nearest descriptors are found; `auto` compares with every row of the part up to
            `EXACT_ROWS`, searches an approximate index in memory beyond, and LanceDB's on disk where neither
            fits into the memory budget.
    """

    def __init__(
        self,
        store_uri: str,
        *,
        part: Part = WHOLE,
        method: Choice = "auto",
        memory_bytes: int = MEMORY_BYTES,
        keep_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load the newest version.

        Args:
            store_uri: The store's folder.
            part: Which of its rows.
            method: See the attribute.
            memory_bytes: Budget for this part's index.
            keep_s: How long a version stays after a newer one took over.
            clock: Seconds.

        Raises:
            StoreError: there is no store, or it cannot be read.
        """
        self.method: Choice = method
        self._folder = local_folder(store_uri)
        self._part = part
        self._memory_bytes = memory_bytes
        self._keep_s = keep_s
        self._clock = clock
        self._following = threading.Lock()
        self.card = _stored_card(self._folder)
        self._held: tuple[_Held, ...] = (self._load(),)

    @property
    def view(self) -> View:
        """The newest version held."""
        return self._held[-1].view

    @property
    def held(self) -> tuple[int, ...]:
        """Numbers of the versions held, the newest last."""
        return tuple(held.view.version for held in self._held)

    def follow(self) -> bool:
        """Move to the newest acknowledged version; return whether there was another one.

        Raises:
            CardMismatch: another store lies there now.
            StoreError: the store cannot be read; what is held stays.
        """
        with self._following:
            _stored_card(self._folder).require_same(self.card)
            now = self._clock()
            if self._newest() == self._held[-1].committed:
                self._held = tuple(held for held in self._held if not self._is_old(held, now))
                return False
            fresh = self._load()
            kept = [_Held(h.view, h.committed, h.superseded_at or self._clock()) for h in self._held]
            # A version that is not newer means that the store was repaired or replaced: forget what was.
            numbers_go_on = fresh.view.version > kept[-1].view.version
            kept = [held for held in kept if numbers_go_on and not self._is_old(held, now)]
            self._held = (*kept, fresh)
            return True

    def search(
        self, descriptors: npt.NDArray[np.float32], *, k: int, version: int | None = None
    ) -> list[Found]:
        """Search one version.

        Args:
            descriptors: (B, D) float32, unit L2 norm.
            k: How many candidates of this part each query wants.
            version: Which version; None takes the newest held.

        Raises:
            VersionNotHeld: `version` is not held.
            InvalidBatch: descriptors of another width, not finite, or of no unit norm; k below 1.
            CorruptStore: the index on disk cannot be read.
        """
        held = self._held
        view = next((h.view for h in reversed(held) if version in (None, h.view.version)), None)
        numbers = tuple(h.view.version for h in held)
        if view is None:
            raise VersionNotHeld(f"version {version} is not held, only {numbers}: ask for one of these")
        method = self._method_for(view.count)
        answers = view.search(descriptors, k=k, method=method)
        return [Found(view.version, view.count, view.degraded, hits, numbers) for hits in answers]

    def _load(self) -> _Held:
        before = self._newest()
        view = newest_view(self._folder, self.card, self._part)
        view.searcher(self._method_for(view.count))
        # A commit may have come in between; the one of this view is known by its version.
        after = self._newest()
        return _Held(view, after if after.version == view.version else before)

    def _newest(self) -> Committed:
        committed = read_committed(self._folder)
        if committed is None:
            raise StoreNotFound(f"{self._folder} holds no finished store: run placeray index again")
        for name in (TABLE_FOLDER, FEATURES_FOLDER):
            if not (self._folder / name).is_dir():
                raise CorruptStore(f"{self._folder / name} is gone: bring the store back from its backup")
        return committed

    def _method_for(self, rows: int) -> Method:
        if self.method != "auto":
            return self.method
        # Decided by the version alone, so that all parts of an index decide alike.
        rows = -(-rows // self._part.of)
        method: Method = "exact" if rows <= EXACT_ROWS else "ivf"
        stored = 2 if self.card.descriptor_dtype == "float16" else 4
        # Beside descriptors as they are stored, up to half a byte a dimension of codes.
        bytes_each = self.card.descriptor_dim * (4 if method == "exact" else stored + 0.5)
        return method if rows * bytes_each <= self._memory_bytes else "lance"

    def _is_old(self, held: _Held, now: float) -> bool:
        return held.superseded_at is not None and now - held.superseded_at > self._keep_s


def merge(parts: list[Found], *, k: int) -> Found:
    """Put together what the parts of one index found in the same version: the k best of all.

    Args:
        parts: One answer of each part, all of one version.
        k: How many candidates.
    """
    hits = [hit for found in parts for hit in found.hits]
    hits.sort(key=lambda hit: (-hit.similarity, hit.record.image_id))
    return Found(
        version=parts[0].version,
        rows=parts[0].rows,
        degraded=any(found.degraded for found in parts),
        hits=hits[:k],
        held=parts[0].held,
    )


def _stored_card(folder: Path) -> Card:
    try:
        return Card.from_json((folder / "card.json").read_text(errors="replace"))
    except FileNotFoundError:
        raise StoreNotFound(
            f"{folder} holds no store: make one with placeray index SOURCE --store {folder}"
        ) from None
    except OSError as error:
        raise CorruptStore(
            f"{folder / 'card.json'} cannot be read ({error.strerror}): look at its permissions"
        ) from error
