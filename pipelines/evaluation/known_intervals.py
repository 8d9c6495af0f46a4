"""Intervals of the figures of calibrated answers, by a bootstrap of whole places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.intervals import clustered_bootstrap, share_interval
from pipelines.evaluation.known_figures import BINS, average_precision, bins_of, calibrated_columns
from pipelines.evaluation.outcome import QueryOutcome

__all__ = ["known_intervals"]

_DIGITS = 4


def known_intervals(outcomes: Sequence[QueryOutcome]) -> dict[str, Any]:
    """Return the 95 % intervals of `known_figures`, by the same keys; empty where no answer was calibrated.

    Chance alone makes a calibration error: it is a sum of absolute gaps. The lower end is therefore the
    figure without what chance makes of the gaps, the sum of their absolute changes when places are drawn
    again, which by the triangle inequality bounds the change of the figure: 0 where there may be no error.
    """
    probability, right, known, places = calibrated_columns(outcomes)
    if not len(probability):
        return {}
    rows = np.column_stack([probability, right])
    gaps = _gaps(rows)
    _, high = clustered_bootstrap(rows, places, lambda drawn: float(np.abs(_gaps(drawn)).sum()))
    _, chance = clustered_bootstrap(rows, places, lambda drawn: float(np.abs(_gaps(drawn) - gaps).sum()))
    error = float(np.abs(gaps).sum())
    wrong = share_interval(~right[known], places[known]) if known.any() else (math.nan, math.nan)
    area = clustered_bootstrap(rows, places, _area) if right.any() else (math.nan, math.nan)
    return {
        "coverage": _rounded(share_interval(known, places)),
        "false_discovery_rate": _rounded(wrong),
        "auc_pr": _rounded(area),
        "ece": _rounded((error - chance, max(error, high))),
    }


def _gaps(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what each bin adds to the calibration error, with its sign, of (N, 2) probability and right."""
    gaps = np.bincount(bins_of(rows[:, 0]), weights=rows[:, 1] - rows[:, 0], minlength=BINS)
    return gaps / len(rows)


def _area(rows: NDArray[np.float64]) -> float:
    area = average_precision(rows[:, 0], rows[:, 1].astype(np.bool_))
    return math.nan if area is None else area


def _rounded(ends: tuple[float, float]) -> list[float | None]:
    return [round(min(1.0, max(0.0, end)), _DIGITS) if math.isfinite(end) else None for end in ends]
