"""The hits of one query, and how those of several partitions are merged."""

from __future__ import annotations

from dataclasses import dataclass

from storage.card import Card
from storage.records import Candidate

__all__ = ["SearchHits", "merge_hits"]


@dataclass(frozen=True)
class SearchHits:
    """The hits of one query in one partition of the index, or merged from all of them.

    Attributes:
        version: The store version that was searched.
        rows: Rows of that version, in all partitions.
        degraded: Whether damaged rows had to be left out.
        hits: Best first, ties by image_id.
        loaded_versions: Every version that this partition could have searched.
        card: Of the version that was searched.
        considered: How many rows the filter left, of this partition or of all that were merged; None without
            a filter.
        method: How it was searched, see `storage.search.methods`.
    """

    version: int
    rows: int
    degraded: bool
    hits: list[Candidate]
    loaded_versions: tuple[int, ...]
    card: Card | None = None
    considered: int | None = None
    method: str | None = None


def merge_hits(partitions: list[SearchHits], *, k: int) -> SearchHits:
    """Merge the hits of the partitions of one index into the k best of all.

    Args:
        partitions: One result per partition, all of the same version.
        k: Number of candidates.
    """
    hits = [hit for partition in partitions for hit in partition.hits]
    left = [partition.considered for partition in partitions if partition.considered is not None]
    hits.sort(key=lambda hit: (-hit.similarity, hit.record.image_id))
    return SearchHits(
        version=partitions[0].version,
        rows=partitions[0].rows,
        degraded=any(partition.degraded for partition in partitions),
        hits=hits[:k],
        loaded_versions=partitions[0].loaded_versions,
        card=partitions[0].card,
        considered=sum(left) if left else None,
        method=partitions[0].method,  # all partitions of an index decide alike
    )
