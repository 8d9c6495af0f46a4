"""Results of the stages of a query; plain data that travels between processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.search.hits import SearchHits

__all__ = ["Counted", "Extracted", "IndexStatus", "Searched"]


@dataclass(frozen=True, eq=False)
class Extracted:
    """One photo as the model sees it.

    Attributes:
        descriptor: (D,) float32, unit L2 norm.
        features: (H, W, C) float32, unit L2 norm per cell.
        decode_ms: Decoding and resizing, without waiting.
        extract_ms: The model's time for the whole batch.
        batch: How many photos were in it.
        waiting: How many photos waited when it was done.
    """

    descriptor: NDArray[np.float32]
    features: NDArray[np.float32]
    decode_ms: float
    extract_ms: float
    batch: int
    waiting: int


@dataclass(frozen=True)
class IndexStatus:
    """State of one part of the index.

    Attributes:
        version: Newest store version held.
        rows: Rows of it, in all parts.
        trouble: Why the store cannot be followed, as a word; None when all is well.
    """

    version: int
    rows: int
    trouble: str | None


@dataclass(frozen=True)
class Searched:
    """One part's answer.

    Attributes:
        found: What was found; None where the requested version is not held.
        held: Versions that can be searched.
        search_ms: Time of the whole batch.
        batch: Queries in it.
        waiting: Queries that waited when it was done.
    """

    found: SearchHits | None
    held: tuple[int, ...]
    search_ms: float
    batch: int
    waiting: int


@dataclass(frozen=True)
class Counted:
    """Match counts of one photo's candidates.

    Attributes:
        counts: One per candidate; None where its features could not be read. Fewer than candidates where
            matching ended early: those beyond were left out.
        fetch_ms: Reading the features, of the whole batch where all its candidates are matched.
        rerank_ms: Counting for this photo.
        batch: Photos in the batch.
        waiting: Photos that waited when it was done.
        cache_hits: Candidates of the batch whose features were in memory.
        cache_misses: Candidates of the batch whose features were read.
    """

    counts: list[int | None]
    fetch_ms: float
    rerank_ms: float
    batch: int
    waiting: int
    cache_hits: int
    cache_misses: int
