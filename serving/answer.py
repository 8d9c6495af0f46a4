"""The order of an answer and its shape outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storage.records import Candidate, Match, QueryResult

__all__ = ["Answer", "answer_json", "rank"]


@dataclass(frozen=True)
class Answer(QueryResult):
    """The answer to one query, and how far re-ranking went for it.

    Attributes:
        reranked: How many candidates were matched, where some may have been left out; None where not.
    """

    reranked: int | None = None


def answer_json(result: Answer) -> dict[str, Any]:
    """Return an answer in the shape that the command line and HTTP give, without its request id."""
    matches = [
        {
            "rank": match.rank,
            "image_id": match.record.image_id,
            "uri": match.record.uri,
            "lat": match.record.lat,
            "lon": match.record.lon,
            "utm_e": match.record.utm_e,
            "utm_n": match.record.utm_n,
            "similarity": round(match.similarity, 6),
            "mutual_matches": match.mutual_matches,
        }
        for match in result.matches
    ]
    return {
        "model": result.model,
        "store_version": result.store_version,
        "degraded": result.degraded,
        **({} if result.reranked is None else {"reranked": result.reranked}),
        "matches": matches,
        "timings_ms": {name: round(value, 3) for name, value in result.timings_ms.items()},
    }


def rank(hits: list[Candidate], counts: Sequence[int | None]) -> tuple[Match, ...]:
    """Order search hits by mutual matches; ties keep the order of similarity.

    A hit whose count is None (beyond the candidates, or its features could not be read) keeps the place that
    the global descriptors gave it.

    Args:
        hits: K search hits, most similar first.
        counts: Mutual-nearest-neighbour counts of the first hits, at most K.
    """
    counts = [*counts, *[None] * (len(hits) - len(counts))]
    counted = [i for i, count in enumerate(counts) if count is not None]
    best_first = iter(sorted(counted, key=lambda i: -(counts[i] or 0)))
    order = [i if counts[i] is None else next(best_first) for i in range(len(hits))]
    return tuple(
        Match(place + 1, hits[i].record, hits[i].similarity, counts[i]) for place, i in enumerate(order)
    )
