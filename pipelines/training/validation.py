"""Recall@K on the validation split during training, computed by all workers together.

Each worker keeps the local features of its part of the database in a temporary file of its own, and matches
those candidates only, so neither photos nor features travel; only the queries' features do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.aggregation import Aggregation
from models.matching.votes import BASELINE_CANDIDATES, vote_scores
from pipelines.training.data import PhotoSet
from pipelines.training.database_part import BLOCK, DatabasePart, Extract
from pipelines.training.neighbours import find_neighbours
from pipelines.training.rankings import AggregationKind, Ranking, Recall
from pipelines.training.worker_group import WorkerGroup

__all__ = ["ValidationSet", "recall_of", "validation_set"]

_QUERIES_AT_ONCE = 32

Hits = dict[AggregationKind, NDArray[np.int64]]  # (n, K) rows of the database for some queries
Matches = tuple[Tensor, Tensor]  # partners and similarities, see `DatabasePart.match`


@dataclass(frozen=True)
class ValidationSet:
    """The queries of validation and their ground truth.

    Attributes:
        queries: (Q,) int64, rows of the queries.
        database: Number of database photos.
        positives: For each query the database rows within the threshold.
    """

    queries: NDArray[np.int64]
    database: int
    positives: tuple[frozenset[int], ...]


def validation_set(
    queries: PhotoSet, database: PhotoSet, *, threshold_m: float, max_queries: int, seed: int
) -> ValidationSet:
    """Choose the queries by the seed and find the positives of each.

    Raises:
        MiningRejected: coordinates are missing, or no query has a positive.
    """
    near = find_neighbours(queries, database, positive_m=threshold_m, negative_m=threshold_m, negatives=1)
    rows = np.arange(len(queries))
    if max_queries < len(rows):
        rows = np.sort(np.random.default_rng((seed, 1)).choice(rows, max_queries, replace=False))
    positives = tuple(frozenset(near.positives(int(row)).tolist()) for row in rows)
    return ValidationSet(rows, len(database), positives)


def recall_of(
    truth: ValidationSet,
    of_queries: Extract,
    of_database: Extract,
    *,
    group: WorkerGroup,
    candidates: int,
    rankings: Sequence[Ranking],
) -> list[Recall]:
    """Search and re-rank as the query engine does, and score the answers.

    Learned descriptors are those of features kept in half precision.

    Args:
        truth: The queries and their positives.
        of_queries: Computes descriptors (n, D) and features (n, H, W, C) float32 of rows (n,) of the queries.
        of_database: The same for the database.
        group: The workers that share the work; each returns the same.
        candidates: How many hits are re-ranked.
        rankings: The ways to rank.

    Returns:
        One recall for each of them.

    Raises:
        OutOfSpace: the features of the database do not fit on the temporary disk.
    """
    part = DatabasePart(truth.database, of_database, group)
    right = np.zeros((len(rankings), 4), np.int64)
    kinds = {ranking.aggregation for ranking in rankings}
    try:
        learned = part.learn() if "learned" in kinds else None
        described = {"gem": part.descriptors}
        if learned is not None:
            described["learned"] = part.describe(learned)
        for start in range(0, len(truth.queries), _QUERIES_AT_ONCE):
            rows = truth.queries[start : start + _QUERIES_AT_ONCE]
            asked, features = _queries(part, of_queries, rows, group, learned)
            hits: Hits = {
                kind: (asked[kind] @ described[kind].T)
                .sort(dim=1, descending=True, stable=True)
                .indices[:, :candidates]
                .numpy()
                for kind in sorted(kinds)
            }
            matches = [part.match(features[i], _rows_of(part, hits, i)) for i in range(len(rows))]
            for number, ranking in enumerate(rankings):
                hit = hits[ranking.aggregation]
                scores = _scores(part, group, matches, hits, ranking, tuple(features.shape[1:3]))
                for i, row in enumerate(hit):
                    found = np.array([one in truth.positives[start + i] for one in row.tolist()])
                    ranked = found[np.argsort(-scores[i], kind="stable")]
                    right[number] += [found[0], found[:5].any(), ranked[0], ranked[:5].any()]
    finally:
        part.close()
    return [Recall(*(round(100 * int(n) / len(truth.queries), 4) for n in row)) for row in right]


def _queries(
    part: DatabasePart,
    extract: Extract,
    rows: NDArray[np.int64],
    group: WorkerGroup,
    learned: Aggregation | None,
) -> tuple[dict[AggregationKind, Tensor], Tensor]:
    """Return descriptors of some queries by what makes them, and features (n, H, W, C), all on the CPU."""
    blocks = [extract(rows[a:b]) for a, b in group.blocks(len(rows), BLOCK)]
    parts = zip(*blocks, strict=True) if blocks else ([torch.zeros(0, *shape)] for shape in part.shapes)
    own, features = (group.gather_blocks(torch.cat(list(each)), len(rows), BLOCK) for each in parts)
    asked: dict[AggregationKind, Tensor] = {"gem": own}
    if learned is not None:
        asked["learned"] = torch.from_numpy(learned.describe(features.numpy().astype(np.float16)))
    return asked, features


def _rows_of(part: DatabasePart, hits: Hits, query: int) -> NDArray[np.int64]:
    """Return the candidates of a query that this worker matches, sorted, whatever found them."""
    rows = np.unique(np.concatenate([hit[query] for hit in hits.values()]))
    return rows[part.owns(rows)]


def _scores(
    part: DatabasePart,
    group: WorkerGroup,
    matches: Sequence[Matches],
    hits: Hits,
    ranking: Ranking,
    grid: tuple[int, ...],
) -> NDArray[np.float64]:
    """Return the (n, K) scores of the candidates of some queries, put together from all workers.

    Args:
        part: The database of this worker.
        group: The workers.
        matches: Of each query with what `_rows_of` returns.
        hits: (n, K) rows of the database, the most similar first.
        ranking: How to score.
        grid: H and W of the features.
    """
    hit = hits[ranking.aggregation]
    own = part.owns(hit)
    places = [
        np.searchsorted(_rows_of(part, hits, i), row[mine])
        for i, (row, mine) in enumerate(zip(hit, own, strict=True))
    ]
    scores = torch.zeros(hit.shape, dtype=torch.float64)
    if ranking.score == "count":
        for i, (partner, similarity) in enumerate(matches):
            mutual = partner[places[i]] >= 0
            if ranking.floor is not None:
                mutual &= similarity[places[i]] >= ranking.floor
            scores[i, own[i]] = mutual.sum(dim=1).double()
        return np.asarray(group.sum(scores).numpy())
    # Every worker must know how similar the first candidates are, which other workers matched.
    first = torch.zeros(len(hit), min(BASELINE_CANDIDATES, hit.shape[1]), grid[0] * grid[1])
    near = [np.flatnonzero(row[: first.shape[1]]) for row in own]
    for i, (_, similarity) in enumerate(matches):
        first[i, near[i]] = similarity[places[i][: len(near[i])]]
    first = group.sum(first)
    for i, (partner, similarity) in enumerate(matches):
        head, rest = torch.full_like(first[i], -1).to(partner.dtype), places[i][len(near[i]) :]
        head[near[i]] = partner[places[i][: len(near[i])]]
        votes = vote_scores(
            torch.cat([head, partner[rest]]), torch.cat([first[i], similarity[rest]]), (grid[0], grid[1])
        )
        scores[i, own[i]] = torch.cat([votes[near[i]], votes[len(head) :]])
    return np.asarray(group.sum(scores).numpy())
