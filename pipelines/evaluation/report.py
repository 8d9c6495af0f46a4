"""One HTML file that shows an evaluation: recall, map, and matched pairs. Needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.images import ImageRejected
from models.images.photo_file import read_bytes, read_indexed
from pipelines.evaluation.describe import (
    STAGE_NAMES,
    describe_conditions,
    describe_notes,
    in_brackets,
    interval_text,
)
from pipelines.evaluation.known_figures import describe_known, most_wrong, reliability_curve
from pipelines.evaluation.place_figures import describe_place
from pipelines.evaluation.report_parts import (
    error_histogram,
    map_of,
    parts_table,
    suspect_truth,
)
from pipelines.evaluation.result import Evaluation, QueryOutcome
from pipelines.html_report import Thumbnail, make_thumbnail, render
from serving.engine import QueryEngine
from storage.durable import explain_write_errors, replace_file
from storage.records import ImageRecord

__all__ = ["choose_examples", "write_report"]

MAX_LINES = 40
THUMBNAIL_PX = 420
_GAP_PX = 12  # between the photos of a pair


def choose_examples(evaluation: Evaluation, *, count: int = 12) -> list[QueryOutcome]:
    """Choose example queries: those that re-ranking corrected, then right ones, then wrong ones."""
    answered = [outcome for outcome in evaluation.outcomes if outcome.matches]
    rescued = [o for o in answered if o.first_hit_reranked == 1 and o.first_hit_global != 1]
    wrong = [o for o in answered if o.first_hit_reranked != 1]
    right = [o for o in answered if o.first_hit_reranked == 1 and o.first_hit_global == 1]
    few_wrong = wrong[: max(1, count // 4)]
    few_rescued = rescued[: max(1, (count - len(few_wrong)) * 2 // 3)]
    return (few_rescued + right[: max(0, count - len(few_wrong) - len(few_rescued))] + few_wrong)[:count]


def write_report(
    path: str | Path, evaluation: Evaluation, engine: QueryEngine, *, notes: Sequence[str] = ()
) -> None:
    """Write the report page atomically.

    Args:
        path: The HTML file.
        evaluation: The evaluation to show.
        engine: The engine that was evaluated; it locates the matched features of the examples.
        notes: Extra lines under the heading, plain text.

    Raises:
        OutOfSpace: the disk is full.
        NotWritable: the folder cannot be written.
    """
    page = render(
        "evaluation.html",
        evaluation=evaluation,
        notes=[*describe_notes(evaluation), *notes],
        conditions=describe_conditions(evaluation.conditions),
        recall_at=[int(k) for k in evaluation.recall["global"]],
        stage_names=STAGE_NAMES,
        stage_ms=_stage_ms(evaluation),
        map=map_of(evaluation, engine.store.metadata()),
        histogram=error_histogram(evaluation),
        intervals={stage: _interval_cells(evaluation, stage) for stage in evaluation.recall},
        further=_further(evaluation),
        by_condition=parts_table(evaluation.by_condition),
        by_density=parts_table(evaluation.by_density),
        deployed=evaluation.get("deployed"),
        interval_text=interval_text,
        suspects=[_pair(outcome, engine) for outcome in suspect_truth(evaluation)],
        pairs=[_pair(outcome, engine) for outcome in choose_examples(evaluation)],
        place=describe_place(evaluation.place, evaluation.intervals.get("place")),
        known=describe_known(evaluation.known, evaluation.intervals.get("known")),
        reliability=reliability_curve(evaluation.outcomes),
        wrong=[
            _pair(outcome, engine) | {"probability": (outcome.place or {})["probability_right"]}
            for outcome in most_wrong(evaluation.outcomes)
        ],
    )
    target = Path(path)
    with explain_write_errors(target, len(page)):
        target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, page)


def _interval_cells(evaluation: Evaluation, stage: str) -> list[str]:
    """Return the interval of each recall of a stage; empty texts where there is none."""
    ends = evaluation.intervals.get("recall", {}).get(stage, {})
    return [interval_text(ends.get(k)) for k in evaluation.recall[stage]] if ends else []


def _further(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Return mean average precision and median error of each stage, as texts with their intervals."""
    rows = []
    for stage, precisions in evaluation.mean_average_precision.items():
        depth, ends = list(precisions)[-1], evaluation.intervals
        precision = f"{precisions[depth]:.1f}{in_brackets(ends['mean_average_precision'][stage][depth])}"
        metres = evaluation.median_error_m[stage]
        error = "–" if metres is None else f"{metres:.1f} m{in_brackets(ends['median_error_m'][stage])}"
        rows.append((STAGE_NAMES[stage], precision, error))
    return rows


def _stage_ms(evaluation: Evaluation) -> list[tuple[str, float]]:
    """Return the milliseconds per answered query of each stage, the total last."""
    answered = max(1, evaluation.queries - evaluation.queries_rejected)
    stages = [stage for stage in evaluation.seconds if stage not in {"wall", "total"}]
    return [(stage, evaluation.seconds[stage] / answered * 1e3) for stage in [*stages, "total"]]


def _pair(outcome: QueryOutcome, engine: QueryEngine) -> dict[str, Any]:
    """Return a query and its first answer side by side, with lines between their matched features."""
    match = outcome.matches[0]
    photo = read_bytes(outcome.uri)
    limit = engine.max_pixels
    left = make_thumbnail(photo, max_side_px=THUMBNAIL_PX, max_pixels=limit)
    right = _stored_thumbnail(engine.stored_record(match.record), limit)
    matched = engine.matched_lines(photo, match.record)
    best = np.argsort(-matched.similarity)[:MAX_LINES]
    best = best[np.argsort(matched.agree[best], kind="stable")]  # those that agree on top
    shift = left.width + _GAP_PX
    lines = [
        (
            a[0] * left.width,
            a[1] * left.height,
            shift + b[0] * right.width,
            b[1] * right.height,
            _line_colour(similarity, agrees),
        )
        for a, b, similarity, agrees in zip(
            matched.points[best],
            matched.stored_points[best],
            matched.similarity[best].tolist(),
            matched.agree[best].tolist(),
            strict=True,
        )
    ]
    return {
        "left": left,
        "right": right,
        "shift": shift,
        "height": max(left.height, right.height),
        "lines": lines,
        "verdict": "right" if outcome.first_hit_reranked == 1 else "wrong",
        "distance_m": outcome.position.distance_m(match.record.position),
        "match": match,
        "first_hit_global": outcome.first_hit_global,
        "name": Path(outcome.uri).name,
    }


def _line_colour(similarity: float, agrees: bool) -> str:
    """Return yellow to green by similarity; grey for a match that does not agree with the others."""
    hue = 40 + 110 * max(0.0, (similarity - 0.5) * 2)
    return f"hsl({hue:.0f} 95% 55%)" if agrees else "hsl(0 0% 62%)"


def _stored_thumbnail(record: ImageRecord, max_pixels: int) -> Thumbnail:
    """Return the picture of a stored image, or an empty frame where the photo is gone or another one."""
    try:
        return make_thumbnail(
            read_indexed(record.uri, record.sha256), max_side_px=THUMBNAIL_PX, max_pixels=max_pixels
        )
    except ImageRejected:
        return Thumbnail("data:,", THUMBNAIL_PX, THUMBNAIL_PX * 3 // 4)
