"""The ways in which validation ranks: by which descriptors, by which score, and their recall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

__all__ = ["AggregationKind", "Ranking", "Recall", "best_ranking", "rankings_of"]

AggregationKind = Literal["gem", "learned"]


class Ranking(NamedTuple):
    """One way to rank.

    Attributes:
        aggregation: What makes the descriptors: `gem`, the model itself, or `learned` from the database.
        score: `count` or `votes`: what candidates are ranked by.
        floor: Lowest similarity of the matches that count; None: all do. Votes need none.
    """

    aggregation: AggregationKind
    score: Literal["count", "votes"]
    floor: float | None = None


class Recall(NamedTuple):
    """Percent of the queries with a right answer among the first 1 and 5."""

    global_1: float
    global_5: float
    reranked_1: float
    reranked_5: float

    @property
    def score(self) -> tuple[float, float, float]:
        """Order of epochs: re-ranked R@5 as published, ties by both R@1."""
        return self.reranked_5, self.reranked_1, self.global_1

    @property
    def order(self) -> tuple[float, float]:
        """Order of rankings: R@1 of descriptors and after re-ranking in sum, then R@5."""
        return round(self.global_1 + self.reranked_1, 6), round(self.global_5 + self.reranked_5, 6)


def rankings_of(floor: float | None) -> tuple[Ranking, ...]:
    """Return the ways to use a model with local features, as `pipelines.training.ways` measures them."""
    return (
        Ranking("gem", "count", floor),
        Ranking("gem", "votes"),
        Ranking("learned", "count", floor),
        Ranking("learned", "votes"),
    )


def best_ranking(rankings: Sequence[Ranking], recalls: Sequence[Recall]) -> tuple[Ranking, Recall]:
    """Return the ranking of the highest recall, of equal ones the first, and its recall."""
    return max(zip(rankings, recalls, strict=True), key=lambda pair: pair[1].order)
