"""Evaluations made of given ranks, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.evaluation.figures import figures_of
from pipelines.evaluation.outcome import QueryOutcome
from pipelines.evaluation.result import Evaluation
from serving.answer import Match
from storage.position import Position
from storage.records import ImageRecord

__all__ = ["make_evaluation", "make_outcome"]


def make_outcome(
    number: int, metres: Sequence[float], *, cluster: int | None = None, folder: str = "/q", **other: Any
) -> QueryOutcome:
    """Return a query whose answers lie at these distances, best first; right within 25 m.

    By global descriptor the answers are in the opposite order.
    """
    count = len(metres)
    matches = tuple(
        Match(
            rank,
            ImageRecord(
                f"{number}-{rank}.jpg",
                f"/db/{number}-{rank}.jpg",
                *("", 1, 1),
                Position(utm_e=500_000.0 + 1000 * number + away, utm_n=4e6, utm_zone="33T"),
                *(None, None, "s", 0),
            ),
            0.1 + rank / 100,
            10 * (count - rank) + 1,
            10.0 * (count - rank) + 1,
            "count",
        )
        for rank, away in enumerate(metres, start=1)
    )
    right = tuple(away <= 25 for away in metres)
    ranks = [rank for rank, is_right in enumerate(right, start=1) if is_right]
    return QueryOutcome(
        uri=f"{folder}/{number}.jpg",
        position=Position(utm_e=500_000.0 + 1000 * number, utm_n=4e6, utm_zone="33T"),
        rejected=None if matches else "empty",
        positives=sum(right),
        matches=matches,
        first_hit_global=count + 1 - ranks[-1] if ranks else None,
        first_hit_reranked=ranks[0] if ranks else None,
        right=right,
        cluster=number if cluster is None else cluster,
        timings_ms={"total": 1.5} if matches else {},
        sha256=f"{number:064d}",
        positive_ids=frozenset(f"{number}-{rank}.jpg" for rank in ranks),
        **other,
    )


def make_evaluation(outcomes: Sequence[QueryOutcome], **changed: Any) -> Evaluation:
    """Return the evaluation of these outcomes."""
    conditions: Mapping[str, Any] = {
        "model": "made",
        "weights_sha256": "0" * 64,
        "image_size": [224, 224],
        "resize": "pil_bilinear",
        "descriptor_dim": 4,
        "features": "float16",
        "precision": "float32",
        "device": "cpu",
        "search": "exact",
        "score": "count",
        "min_similarity": None,
        "candidates": 100,
        "matching": "every candidate, exactly",
        "protocol": "metres:25",
        "threshold_m": 25.0,
        "frames": None,
        "distance": "Euclidean",
        "dataset_sha256": "1" * 64,
        "store_version": 3,
        "store_format": 3,
        "versions": {"placeray": "0.2.0"},
    }
    values: dict[str, Any] = {
        "dataset": "made",
        "protocol": "right within 25 m",
        "model": "made",
        "store_version": 3,
        "queries": len(outcomes),
        "database": 100,
        "seconds": {"total": 1.0},
        "queries_without_positive": 0,
        "queries_without_coordinates": 0,
        "queries_rejected": 0,
        "database_without_coordinates": 0,
        "degraded": 0,
        "conditions": conditions,
    }
    return Evaluation(
        **values | changed, outcomes=tuple(outcomes), **figures_of(outcomes, ("global", "reranked"))
    )
