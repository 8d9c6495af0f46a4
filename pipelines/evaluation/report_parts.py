"""Parts of the report page: the map, the histogram of errors, suspect ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.evaluation.describe import STAGE_NAMES, in_brackets, part_name
from pipelines.evaluation.outcome import QueryOutcome
from pipelines.evaluation.result import Evaluation
from storage.position import POSITION_COLUMNS, Position, Positions

__all__ = ["error_histogram", "map_of", "parts_table", "suspect_truth"]

_EDGES_M = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)
_MAX_DOTS = 4_000  # more would slow down the page without a clearer map
_MAX_LINES = 800
_SUSPECTS = 8
_BAR_HEIGHT = 140.0


def map_of(evaluation: Evaluation, stored: pa.Table) -> dict[str, Any] | None:
    """Place queries, first answers and database on a map 1000 units wide.

    Returns:
        None where no stored image has coordinates. A query stands where it was taken, so a line from it to
        its first answer is the error; where the answer is wrong, `truths` has the nearest right image.
    """
    outcomes = evaluation.outcomes
    database = [Position.of(row) for row in stored.select(POSITION_COLUMNS).to_pylist()]
    of_id = dict(zip(stored["image_id"].to_pylist(), database, strict=True))
    answers = [o.matches[0].record.position if o.matches else Position() for o in outcomes]
    truths = [_nearest_right(outcome, of_id) for outcome in outcomes]
    positions = [*(outcome.position for outcome in outcomes), *answers, *truths, *database]
    count = len(outcomes)
    points = Positions.of(positions).on_one_plane()
    queries, answered, right, dots = np.split(points, [count, 2 * count, 3 * count])
    dots = dots[np.isfinite(dots).all(axis=1)]
    if not len(dots):
        return None
    dots = np.unique(dots[:: max(1, len(dots) // _MAX_DOTS)], axis=0)
    shown = np.concatenate([dots, queries[np.isfinite(queries).all(axis=1)]])
    low = shown.min(axis=0)
    span = np.maximum(shown.max(axis=0) - low, 1.0)
    scale = 1000.0 / max(span[0], span[1] * 2.0)
    width, height = span * scale + 40

    def on_map(point: NDArray[np.float64]) -> tuple[float, float]:
        x, y = (point - low) * scale + 20
        return x, height - y

    def drawn(*ends: NDArray[np.float64]) -> bool:
        return bool(np.isfinite(ends).all())

    rows = [row for row in range(count) if drawn(queries[row])]
    lines = sorted(
        (row for row in rows if drawn(answered[row])), key=lambda row: outcomes[row].first_hit_reranked == 1
    )
    return {
        "width": width,
        "height": height,
        "extent": f"{span[0]:.0f} m by {span[1]:.0f} m, north up",
        "database": [on_map(point) for point in dots],
        "queries": [(*on_map(queries[row]), _colour(outcomes[row]), _title(outcomes[row])) for row in rows],
        "lines": [
            (*on_map(queries[row]), *on_map(answered[row]), _colour(outcomes[row]))
            for row in lines[:_MAX_LINES]
        ],
        "truths": [
            on_map(right[row]) for row in rows if outcomes[row].first_hit_reranked != 1 and drawn(right[row])
        ],
    }


def _nearest_right(outcome: QueryOutcome, of_id: dict[str, Position]) -> Position:
    right = [of_id[image_id] for image_id in outcome.positive_ids if image_id in of_id]
    known = [(metres, i) for i, place in enumerate(right) if (metres := outcome.position.distance_m(place))]
    return right[min(known)[1]] if known else (right[0] if right else Position())


def _colour(outcome: QueryOutcome) -> str:
    return "--good" if outcome.first_hit_reranked == 1 else "--bad"


def _title(outcome: QueryOutcome) -> str:
    metres = outcome.error_m("reranked")
    return Path(outcome.uri).name + ("" if metres is None else f": first answer {metres:,.1f} m away")


def error_histogram(evaluation: Evaluation) -> dict[str, Any] | None:
    """Return bars of the share of queries by metres to the first answer; None where no error is known."""
    series = []
    for stage in evaluation.recall:
        errors = [outcome.error_m(stage) for outcome in evaluation.outcomes]
        known = np.array([error for error in errors if error is not None])
        if not len(known):
            return None
        bins = np.bincount(np.searchsorted(_EDGES_M, known, side="left"), minlength=len(_EDGES_M) + 1)
        series.append((stage, [*map(int, bins), len(errors) - len(known)]))
    total = len(evaluation.outcomes)
    highest = max(max(counts) for _, counts in series)
    labels = [f"≤ {edge:,}" for edge in _EDGES_M] + [f"> {_EDGES_M[-1]:,}", "none"]
    width = 1000.0 / len(labels)
    thick = width * 0.76 / len(series)
    bars = []
    for at, (stage, counts) in enumerate(series):
        for column, count in enumerate(counts):
            height = _BAR_HEIGHT * count / highest
            x = column * width + width * 0.12 + at * thick
            title = f"{STAGE_NAMES[stage]}, {labels[column]} m: {count} of {total} queries"
            bars.append((x, _BAR_HEIGHT - height, thick * 0.94, height, stage, title))
    ticks = [((column + 0.5) * width, label) for column, label in enumerate(labels)]
    stages = [(stage, STAGE_NAMES[stage]) for stage, _ in series]
    return {"bars": bars, "ticks": ticks, "height": _BAR_HEIGHT, "stages": stages, "highest": highest}


def parts_table(parts: Sequence[Any]) -> list[tuple[str, int, list[str], float]]:
    """Return name, queries, recall of each stage with its interval, and final R@1 of parts of the queries."""
    return [
        (
            part_name(part),
            part["queries"],
            [
                f"{recall['1']:.1f}{in_brackets(part['intervals'][stage]['1'])}"
                for stage, recall in part["recall"].items()
            ],
            list(part["recall"].values())[-1]["1"],
        )
        for part in parts
    ]


def suspect_truth(evaluation: Evaluation) -> list[QueryOutcome]:
    """Choose queries whose ground truth may be wrong: the first answer agrees as well as right ones do.

    Answers that are wrong by the protocol but have at least the median score of the right first answers,
    the highest first.
    """
    scored = [o for o in evaluation.outcomes if o.matches and o.matches[0].score is not None]
    right = [o.matches[0].score or 0.0 for o in scored if o.first_hit_reranked == 1]
    if not right:
        return []
    least = float(np.median(right))
    suspects = [o for o in scored if o.first_hit_reranked != 1 and (o.matches[0].score or 0.0) >= least]
    return sorted(suspects, key=lambda o: -(o.matches[0].score or 0.0))[:_SUSPECTS]
