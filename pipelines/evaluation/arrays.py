"""Arrays of an evaluation: what a researcher computes with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.evaluation.outcome import QueryOutcome
from storage.position import Positions

__all__ = ["ComparisonArrays", "EvaluationArrays", "arrays_of", "comparison_arrays_of"]

_TIMES = ("decode", "extract", "search", "fetch", "rerank", "total")


@dataclass(frozen=True, eq=False)
class EvaluationArrays:
    """Q queries by K answers in the final order; rows with fewer answers are filled up.

    Attributes:
        image_ids: (Q, K) str, empty where there is no answer.
        ranks_global: (Q, K) int64, rank of each answer by global descriptor, from 1; 0 where none.
        distances_m: (Q, K) float64, from the query to the answer; NaN where not known.
        similarities: (Q, K) float32, cosine similarity of descriptors; NaN where none.
        matches: (Q, K) int32, mutual nearest neighbours; -1 where not re-ranked.
        scores: (Q, K) float32, what re-ranking orders by; NaN where not re-ranked.
        right: (Q, K) bool.
        first_hit_global: (Q,) int64, rank of the first right answer, from 1; 0 where none.
        first_hit_reranked: (Q,) int64, the same in the final order.
        places: (Q,) int64, the place that each query is of.
        timings_ms: Milliseconds per stage, each (Q,) float64; NaN where the photo could not be used.
    """

    image_ids: NDArray[np.str_]
    ranks_global: NDArray[np.int64]
    distances_m: NDArray[np.float64]
    similarities: NDArray[np.float32]
    matches: NDArray[np.int32]
    scores: NDArray[np.float32]
    right: NDArray[np.bool_]
    first_hit_global: NDArray[np.int64]
    first_hit_reranked: NDArray[np.int64]
    places: NDArray[np.int64]
    timings_ms: dict[str, NDArray[np.float64]]


def arrays_of(outcomes: Sequence[QueryOutcome]) -> EvaluationArrays:
    """Return the arrays of an evaluation's outcomes."""
    shape = (len(outcomes), max((len(outcome.matches) for outcome in outcomes), default=0))
    ids = np.full(shape, "", object)
    ranks = np.zeros(shape, np.int64)
    distances, similarities = np.full(shape, np.nan), np.full(shape, np.nan, np.float32)
    counts, scores = np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32)
    right = np.zeros(shape, np.bool_)
    for query, outcome in enumerate(outcomes):
        found = outcome.matches
        if not found:
            continue
        row = slice(0, len(found))
        ids[query, row] = [match.record.image_id for match in found]
        ranks[query, outcome.by_similarity()] = np.arange(1, len(found) + 1)
        positions = Positions.of([match.record.position for match in found])
        distances[query, row] = positions.distances_m(outcome.position)
        similarities[query, row] = [match.similarity for match in found]
        counts[query, row] = [-1 if m.mutual_matches is None else m.mutual_matches for m in found]
        scores[query, row] = [np.nan if match.score is None else match.score for match in found]
        right[query, row] = outcome.right
    return EvaluationArrays(
        image_ids=ids.astype(np.str_),
        ranks_global=ranks,
        distances_m=distances,
        similarities=similarities,
        matches=counts,
        scores=scores,
        right=right,
        first_hit_global=np.array([o.first_hit_global or 0 for o in outcomes], np.int64),
        first_hit_reranked=np.array([o.first_hit_reranked or 0 for o in outcomes], np.int64),
        places=np.array([outcome.cluster for outcome in outcomes], np.int64),
        timings_ms={
            stage: np.array([o.timings_ms.get(stage, np.nan) for o in outcomes], np.float64)
            for stage in _TIMES
        },
    )


@dataclass(frozen=True, eq=False)
class ComparisonArrays:
    """Q queries in two evaluations: row 0 of each pair is of the first, row 1 of the second.

    Attributes:
        queries: (Q,) str, paths.
        places: (Q,) int64, the place that each query is of.
        first_hit_global: (2, Q) int64, rank of the first right answer, from 1; 0 where none.
        first_hit_reranked: (2, Q) int64, the same in the final order.
        distances_m: (2, Q) float64, from the query to the first answer in the final order; NaN where unknown.
        similarities: (2, Q) float32, of the first answer; NaN where none.
        matches: (2, Q) int32, mutual nearest neighbours of the first answer; -1 where not re-ranked.
        scores: (2, Q) float32, of the first answer; NaN where not re-ranked.
        won: (Q,) bool, right at the first answer only in the second evaluation.
        lost: (Q,) bool, only in the first.
        timings_ms: Milliseconds per stage, each (2, Q) float64; NaN where the photo could not be used.
    """

    queries: NDArray[np.str_]
    places: NDArray[np.int64]
    first_hit_global: NDArray[np.int64]
    first_hit_reranked: NDArray[np.int64]
    distances_m: NDArray[np.float64]
    similarities: NDArray[np.float32]
    matches: NDArray[np.int32]
    scores: NDArray[np.float32]
    won: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    timings_ms: dict[str, NDArray[np.float64]]


def comparison_arrays_of(table: pa.Table) -> ComparisonArrays:
    """Return the arrays of a comparison's table, see `pipelines.evaluation.comparison`."""

    def pair(name: str, dtype: Any, none: float) -> NDArray[Any]:
        columns = [table[f"{name}_{side}"].to_pylist() for side in ("first", "second")]
        return np.array([[none if value is None else value for value in one] for one in columns], dtype)

    first_hit = pair("first_hit_reranked", np.int64, 0)
    return ComparisonArrays(
        queries=np.array(table["query"].to_pylist(), np.str_),
        places=np.array(table["place"].to_pylist(), np.int64),
        first_hit_global=pair("first_hit_global", np.int64, 0),
        first_hit_reranked=first_hit,
        distances_m=pair("error_m_reranked", np.float64, np.nan),
        similarities=pair("similarity", np.float32, np.nan),
        matches=pair("mutual_matches", np.int32, -1),
        scores=pair("score", np.float32, np.nan),
        won=(first_hit[1] == 1) & (first_hit[0] != 1),
        lost=(first_hit[0] == 1) & (first_hit[1] != 1),
        timings_ms={stage: pair(f"ms_{stage}", np.float64, np.nan) for stage in _TIMES},
    )
