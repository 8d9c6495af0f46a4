"""The outcome of one query of an evaluation: its answers, and which of them were right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.answer import Match
from storage.position import Position

__all__ = ["RECALL_AT", "QueryOutcome"]

RECALL_AT = (1, 5, 10, 20, 100)


@dataclass(frozen=True)
class QueryOutcome:
    """One query, its answers, and which of them were right.

    Attributes:
        uri: The query photo.
        position: Where it was taken.
        rejected: Why the photo could not be used, or None.
        positives: Database images within the threshold.
        matches: Answers in their final order, best first.
        first_hit_global: Rank (from 1) of the first right answer by global descriptor, or None.
        first_hit_reranked: The same in the final order, that of the global descriptors without re-ranking.
        right: For each match whether it is right.
        cluster: The place that the query is of, for intervals, see `pipelines.evaluation.query_places`.
        facets: What is known of the photo by kind, such as `{"light": "night"}`.
        timings_ms: Milliseconds per stage; empty where the photo could not be used.
        place: The location answer as a dictionary, where the engine gives one.
        sha256: Digest of the photo's file; None where it cannot be read.
        positive_ids: Keys of the database images that are right.
    """

    uri: str
    position: Position
    rejected: str | None
    positives: int
    matches: tuple[Match, ...]
    first_hit_global: int | None
    first_hit_reranked: int | None
    right: tuple[bool, ...] = ()
    cluster: int = 0
    facets: Mapping[str, str] = field(default_factory=dict)
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    place: Mapping[str, Any] | None = None
    sha256: str | None = None
    positive_ids: frozenset[str] = frozenset()

    def by_similarity(self) -> list[int]:
        """Return the rows of the matches in the order of the global descriptors."""
        matches = self.matches
        return sorted(range(len(matches)), key=lambda i: (-matches[i].similarity, matches[i].record.image_id))

    def error_m(self, stage: str) -> float | None:
        """Return how far the first answer of a stage is from the query in metres; None: not known."""
        if not self.matches:
            return None
        first = self.by_similarity()[0] if stage == "global" else 0
        return self.position.distance_m(self.matches[first].record.position)
