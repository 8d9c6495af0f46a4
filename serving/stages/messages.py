"""Results of the stages of a query: plain data that is sent between processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.matching_options import ScoreKind
from storage.search.hits import SearchHits

__all__ = ["Counted", "Descriptor", "Extracted", "IndexStatus", "Searched"]


@dataclass(frozen=True, eq=False)
class Descriptor:
    """The descriptor of one photo, for each aggregation that the index may be searched with.

    While a service moves to a version of another aggregation, its partitions hold one or the other; each
    compares the descriptor that was made as its own were.

    Attributes:
        by_aggregation: (D,) float32, unit L2 norm, by the digest of the aggregation that made it; None stands
            for the model itself.
        code: (code_bits / 8,) uint8, or None where the model gives none.
    """

    by_aggregation: dict[str | None, NDArray[np.float32]]
    code: NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class Extracted:
    """Descriptor and features of one photo.

    Attributes:
        descriptor: For the newest version of the store, and for the one before.
        features: (H, W, C) float32, unit L2 norm per cell.
        decode_ms: Time of decoding and resizing, without queueing.
        extract_ms: Time of the model for the whole batch.
        batch: Photos in the batch.
        queued: Photos queued when the batch was done.
        precision: What the network computed in.
    """

    descriptor: Descriptor
    features: NDArray[np.float32]
    decode_ms: float
    extract_ms: float
    batch: int
    queued: int
    precision: str = ""


@dataclass(frozen=True)
class IndexStatus:
    """State of one partition of the index.

    Attributes:
        version: Newest store version loaded.
        rows: Rows of that version, in all partitions.
        error: Reason why new commits cannot be loaded, as a word; None if they can.
        method: How this version is searched; None where it cannot be.
    """

    version: int
    rows: int
    error: str | None
    method: str | None = None


@dataclass(frozen=True)
class Searched:
    """Search result of one partition.

    Attributes:
        result: The hits; None where the requested version is not loaded, or none that the descriptor fits.
        loaded_versions: Versions that can be searched.
        search_ms: Time of the whole batch.
        batch: Queries in the batch.
        queued: Queries queued when the batch was done.
    """

    result: SearchHits | None
    loaded_versions: tuple[int, ...]
    search_ms: float
    batch: int
    queued: int


@dataclass(frozen=True)
class Counted:
    """Match counts of one photo's candidates.

    Attributes:
        counts: One per candidate; None where its features could not be read. Fewer than candidates where
            matching stopped early.
        scores: What each is ranked by, as many as `counts`.
        score_kind: What the scores are.
        fetch_ms: Time of reading features, of the whole batch where all candidates are matched.
        rerank_ms: Time of counting for this photo.
        batch: Photos in the batch.
        queued: Photos queued when the batch was done.
        cache_hits: Candidates of the batch whose features were in memory.
        cache_misses: Candidates of the batch whose features were read from disk.
    """

    counts: list[int | None]
    scores: list[float | None]
    score_kind: ScoreKind
    fetch_ms: float
    rerank_ms: float
    batch: int
    queued: int
    cache_hits: int
    cache_misses: int
