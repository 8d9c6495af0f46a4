"""The figures of an evaluation: recall, mean average precision and error, with intervals and breakdowns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.facets import KINDS
from pipelines.evaluation.intervals import clustered_bootstrap, mean_intervals, share_intervals
from pipelines.evaluation.result import RECALL_AT, QueryOutcome

__all__ = ["figures_of", "hits_at", "recall_of"]

_DENSITIES = ((0, 0), (1, 1), (2, 5), (6, 20), (21, None))
_MAX_CONDITIONS = 40


def figures_of(
    outcomes: Sequence[QueryOutcome], stages: Iterable[str], depths: Sequence[int] = RECALL_AT
) -> dict[str, Any]:
    """Return the fields of `Evaluation` that follow from the outcomes.

    Args:
        outcomes: One for each scored query.
        stages: `global`, and `reranked` where candidates were matched.
        depths: Numbers of first answers that recall and precision are of.
    """
    clusters = np.array([outcome.cluster for outcome in outcomes], np.int64)
    figures: dict[str, Any] = {
        "recall": {},
        "mean_average_precision": {},
        "median_error_m": {},
        "places": len(np.unique(clusters)),
    }
    intervals: dict[str, Any] = {"recall": {}, "mean_average_precision": {}, "median_error_m": {}}
    stages = tuple(stages)
    for stage in stages:
        figures["recall"][stage], intervals["recall"][stage] = recall_of(outcomes, stage, depths)
        precisions = np.array([_average_precisions(outcome, stage, depths) for outcome in outcomes])
        figures["mean_average_precision"][stage] = {
            str(k): round(float(value), 2)
            for k, value in zip(depths, 100.0 * precisions.mean(axis=0), strict=True)
        }
        intervals["mean_average_precision"][stage] = {
            str(k): _rounded(*pair)
            for k, pair in zip(depths, (100.0 * mean_intervals(precisions, clusters)).tolist(), strict=True)
        }
        errors = _errors_m(outcomes, stage)
        known = ~np.isnan(errors)
        figures["median_error_m"][stage] = _rounded(_median(errors[known]))[0]
        intervals["median_error_m"][stage] = _rounded(
            *clustered_bootstrap(errors[known], clusters[known], _median)
        )
    return figures | {
        "intervals": intervals,
        "by_condition": _by_condition(outcomes, stages, depths),
        "by_density": _by_density(outcomes, stages, depths),
    }


def hits_at(outcomes: Sequence[QueryOutcome], stage: str, k: int) -> NDArray[np.bool_]:
    """Return (Q,) which queries have a right answer among the first k of a stage."""
    first = [o.first_hit_global if stage == "global" else o.first_hit_reranked for o in outcomes]
    return np.array([hit is not None and hit <= k for hit in first], np.bool_)


def recall_of(
    outcomes: Sequence[QueryOutcome], stage: str, depths: Sequence[int] = RECALL_AT
) -> tuple[dict[str, float], dict[str, list[float | None]]]:
    """Return Recall@K of a stage in percent, and its intervals."""
    clusters = np.array([outcome.cluster for outcome in outcomes], np.int64)
    hits = np.stack([hits_at(outcomes, stage, k) for k in depths], axis=1)
    ends = 100.0 * share_intervals(hits, clusters)
    recall = {
        str(k): round(100.0 * int(column.sum()) / len(hits), 2)
        for k, column in zip(depths, hits.T, strict=True)
    }
    return recall, {str(k): _rounded(*pair) for k, pair in zip(depths, ends.tolist(), strict=True)}


def _average_precisions(outcome: QueryOutcome, stage: str, depths: Sequence[int]) -> list[float]:
    """Return the average precision at each depth, as MSLS defines it.

    The sum of the precision at each right answer, divided by the smaller of the depth and the number of right
    images (Warburg et al., "Mapillary Street-Level Sequences", CVPR 2020); 0 without right images.
    """
    order = outcome.by_similarity() if stage == "global" else range(len(outcome.matches))
    right = np.array([outcome.right[i] for i in order] if outcome.right else [], np.float64)
    gained = np.cumsum(right * np.cumsum(right) / np.arange(1, len(right) + 1))
    if not outcome.positives or not len(gained):
        return [0.0] * len(depths)
    return [float(gained[min(k, len(gained)) - 1]) / min(k, outcome.positives) for k in depths]


def _errors_m(outcomes: Sequence[QueryOutcome], stage: str) -> NDArray[np.float64]:
    """Return (Q,) metres from query to first answer: infinite without an answer, NaN where not known."""
    errors = [outcome.error_m(stage) for outcome in outcomes]
    return np.array(
        [
            (math.nan if outcome.matches else math.inf) if error is None else error
            for outcome, error in zip(outcomes, errors, strict=True)
        ],
        np.float64,
    )


def _median(values: NDArray[np.float64]) -> float:
    """Return the lower median, which exists where some values are infinite; NaN of none."""
    return float(np.sort(values)[(len(values) - 1) // 2]) if len(values) else math.nan


def _rounded(*values: float) -> list[float | None]:
    """Return values for JSON: two decimals, None for what is not finite."""
    return [round(value, 2) if math.isfinite(value) else None for value in values]


def _by_condition(
    outcomes: Sequence[QueryOutcome], stages: Sequence[str], depths: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the recall of each condition that some queries have, by kind; the largest of many."""
    groups: dict[tuple[str, str], list[QueryOutcome]] = {}
    for outcome in outcomes:
        for kind, value in outcome.facets.items():
            groups.setdefault((kind, value), []).append(outcome)
    largest = sorted(groups, key=lambda key: -len(groups[key]))[:_MAX_CONDITIONS]
    order = sorted(largest, key=lambda key: (KINDS.index(key[0]), key[1]))
    return [
        {"kind": kind, "value": value, **_part(groups[kind, value], stages, depths)} for kind, value in order
    ]


def _by_density(
    outcomes: Sequence[QueryOutcome], stages: Sequence[str], depths: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the recall by the number of right images, as places with few are the harder ones."""
    parts = []
    for least, most in _DENSITIES:
        within = [o for o in outcomes if o.positives >= least and (most is None or o.positives <= most)]
        if within:
            parts.append({"least": least, "most": most, **_part(within, stages, depths)})
    return parts


def _part(
    outcomes: Sequence[QueryOutcome], stages: Sequence[str], depths: Sequence[int]
) -> Mapping[str, Any]:
    recall, intervals = {}, {}
    for stage in stages:
        recall[stage], intervals[stage] = recall_of(outcomes, stage, depths)
    places = len({outcome.cluster for outcome in outcomes})
    return {"queries": len(outcomes), "places": places, "recall": recall, "intervals": intervals}
