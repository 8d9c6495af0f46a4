"""The answers to each query as files: a table to read, arrays to compute with.

`predictions.csv` has a row for each answer, the best first. `predictions.npz` has the same as arrays, Q
queries by K answers, as retrieval libraries give them (indices into the database, and distances):

    queries (Q,) str            paths
    query_lat_lon (Q, 2)        degrees; NaN unknown
    query_utm (Q, 2)            metres; NaN unknown
    database (N,) str           image ids of all answers
    indices (Q, K) int64        rows of `database` in the final order; -1 where there is no answer
    indices_global (Q, K)       the same, ordered by global descriptor
    similarity (Q, K) float32   cosine similarity of descriptors, in the final order; NaN where none
    mutual_matches (Q, K) int32 -1 where not re-ranked
    score (Q, K) float32        what the final order is by; NaN where not re-ranked
    distance_m (Q, K) float64   from the query to the answer; NaN unknown
    correct (Q, K) bool         right by the protocol, as within 25 m
    positives (Q,) int64        database images that are right
    first_hit_global (Q,)       rank of the first right answer, from 1; 0: none
    first_hit_reranked (Q,)     the same in the final order
    conditions () str           JSON, see `pipelines.evaluation.conditions`

Beside them lie `queries.csv` and `queries.parquet` (`pipelines.evaluation.query_table`), and the files that
programs of the field write (`pipelines.evaluation.field_files`).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.field_files import write_field_files
from pipelines.evaluation.query_table import query_table, write_query_table
from pipelines.evaluation.result import Evaluation, QueryOutcome
from storage.durable import explain_write_errors, replace_file
from storage.position import Position, Positions
from storage.text import spreadsheet_safe

__all__ = ["write_predictions"]

_COLUMNS = (
    *("query", "rank", "rank_global", "image_id", "uri", "distance_m", "correct"),
    *("similarity", "mutual_matches", "score", "rejected"),
)


def write_predictions(folder: Path, evaluation: Evaluation, uris: Mapping[str, str] | None = None) -> None:
    """Write predictions.csv, predictions.npz, the table of queries, and the files of the field.

    Args:
        folder: Destination; created if missing.
        evaluation: The evaluation.
        uris: Path of each stored image by its id.

    Raises:
        OutOfSpace: the disk is full.
        NotWritable: the folder cannot be written.
    """
    table = io.StringIO(newline="")
    rows = csv.writer(table)
    rows.writerow(_COLUMNS)
    distances = [_distances_m(outcome) for outcome in evaluation.outcomes]
    for outcome, distances_m in zip(evaluation.outcomes, distances, strict=True):
        cells = _rows(outcome, distances_m)
        rows.writerows([spreadsheet_safe(cell) for cell in row] for row in cells)
    arrays = io.BytesIO()
    np.savez_compressed(arrays, **_arrays(evaluation, distances))
    with explain_write_errors(folder, 0):
        folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "predictions.csv", table.getvalue().encode("utf-8", "replace"))
    replace_file(folder / "predictions.npz", arrays.getvalue())
    write_query_table(folder, query_table(evaluation.outcomes, dict(evaluation)))
    write_field_files(folder, evaluation, uris or {})


def _distances_m(outcome: QueryOutcome) -> NDArray[np.float64]:
    """Return the distance of each answer in metres; NaN unknown."""
    return Positions.of([match.record.position for match in outcome.matches]).distances_m(outcome.position)


def _rows(outcome: QueryOutcome, distances_m: NDArray[np.float64]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query; one without answers where its photo cannot be used."""
    if not outcome.matches:
        yield (outcome.uri, *[None] * (len(_COLUMNS) - 2), outcome.rejected or "no answer")
    ranks_global = {index: rank for rank, index in enumerate(outcome.by_similarity(), start=1)}
    for index, match in enumerate(outcome.matches):
        yield (
            outcome.uri,
            match.rank,
            ranks_global[index],
            match.record.image_id,
            match.record.uri,
            None if np.isnan(distances_m[index]) else round(float(distances_m[index]), 3),
            int(outcome.right[index]),
            round(match.similarity, 6),
            match.mutual_matches,
            match.score,
            None,
        )


def _arrays(evaluation: Evaluation, distances: list[NDArray[np.float64]]) -> dict[str, Any]:
    outcomes = evaluation.outcomes
    shape = (len(outcomes), max((len(outcome.matches) for outcome in outcomes), default=0))
    ids = sorted({match.record.image_id for outcome in outcomes for match in outcome.matches})
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    indices, indices_global = np.full(shape, -1, np.int64), np.full(shape, -1, np.int64)
    similarity, mutual = np.full(shape, np.nan, np.float32), np.full(shape, -1, np.int32)
    correct = np.zeros(shape, np.bool_)
    scores, distances_m = np.full(shape, np.nan, np.float32), np.full(shape, np.nan)
    for query, outcome in enumerate(outcomes):
        rows = [row_of[match.record.image_id] for match in outcome.matches]
        indices[query, : len(rows)] = rows
        indices_global[query, : len(rows)] = [rows[i] for i in outcome.by_similarity()]
        correct[query, : len(rows)] = outcome.right
        distances_m[query, : len(rows)] = distances[query]
        for place, match in enumerate(outcome.matches):
            similarity[query, place] = match.similarity
            if match.mutual_matches is not None:
                mutual[query, place] = match.mutual_matches
                scores[query, place] = match.score
    first_global = [outcome.first_hit_global or 0 for outcome in outcomes]
    first_reranked = [outcome.first_hit_reranked or 0 for outcome in outcomes]
    positions = [outcome.position for outcome in outcomes]
    return {
        "queries": np.array([outcome.uri for outcome in outcomes], np.str_),
        "query_lat_lon": _columns(positions, "lat", "lon"),
        "query_utm": _columns(positions, "utm_e", "utm_n"),
        "database": np.array(ids, np.str_),
        "indices": indices,
        "indices_global": indices_global,
        "similarity": similarity,
        "mutual_matches": mutual,
        "score": scores,
        "distance_m": distances_m,
        "correct": correct,
        "positives": np.array([outcome.positives for outcome in outcomes], np.int64),
        "first_hit_global": np.array(first_global, np.int64),
        "first_hit_reranked": np.array(first_reranked, np.int64),
        "conditions": np.array(json.dumps(evaluation.conditions)),
    }


def _columns(positions: list[Position], *names: str) -> Any:
    values = [[getattr(position, name) for name in names] for position in positions]
    return np.array(values, np.float64).reshape(len(positions), len(names))
