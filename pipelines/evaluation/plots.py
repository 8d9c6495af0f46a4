"""Pictures of evaluations for notebooks; needs matplotlib (`pip install 'placeray[plot]'`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.evaluation.describe import STAGE_NAMES
from storage.errors import PlacerayError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.evaluation.outcome import QueryOutcome

__all__ = ["PlottingUnavailable", "plot_comparison", "plot_evaluation"]

_COLOURS = {"global": "#7d8a97", "reranked": "#2463c4", "final": "#2463c4"}


class PlottingUnavailable(PlacerayError, ImportError):
    """matplotlib is not installed."""

    reason = "plotting_unavailable"


def plot_evaluation(evaluation: Mapping[str, Any], outcomes: Sequence[QueryOutcome]) -> Figure:
    """Draw recall by depth with its intervals, and the share of queries by error in metres.

    Args:
        evaluation: The figures, as `dict(evaluation)`.
        outcomes: Its outcomes.

    Raises:
        PlottingUnavailable: matplotlib is not installed.
    """
    pyplot = _pyplot("Evaluation.plot")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for stage, recall in evaluation["recall"].items():
        _line(left, recall, evaluation["intervals"]["recall"][stage], STAGE_NAMES[stage], _COLOURS[stage])
        errors = [outcome.error_m(stage) for outcome in outcomes]
        known = np.sort([error for error in errors if error is not None])
        if len(known):
            share = 100.0 * np.arange(1, len(known) + 1) / len(errors)
            right.plot(np.maximum(known, 0.1), share, color=_COLOURS[stage], label=STAGE_NAMES[stage])
    _axes(left, "first K answers", "recall in %")
    right.set_xscale("log")
    _axes(right, "metres from query to first answer", "queries in %")
    figure.suptitle(
        f"{evaluation['dataset']}: {evaluation['queries']} queries, {evaluation['places']} places",
        fontsize=10,
    )
    pyplot.close(figure)  # a notebook shows the returned figure, once
    return figure  # type: ignore[no-any-return]


def plot_comparison(comparison: Mapping[str, Any]) -> Figure:
    """Draw the paired differences by depth with their intervals.

    Raises:
        PlottingUnavailable: matplotlib is not installed.
    """
    pyplot = _pyplot("Comparison.plot")
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for order, depths in comparison["differences"].items():
        values = {k: at["difference"] for k, at in depths.items()}
        intervals = {k: at["interval"] for k, at in depths.items()}
        _line(
            axes,
            values,
            intervals,
            {"global": "global descriptor", "final": "final order"}[order],
            _COLOURS[order],
        )
    axes.axhline(0.0, color="#9aa0a6", linewidth=0.8)
    _axes(axes, "first K answers", "difference in points")
    pyplot.close(figure)
    return figure  # type: ignore[no-any-return]


def _pyplot(caller: str) -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise PlottingUnavailable(f"{caller} needs matplotlib: pip install 'placeray[plot]'") from error
    return pyplot


def _line(
    axes: Any, values: Mapping[str, float], intervals: Mapping[str, Any], label: str, colour: str
) -> None:
    depths = np.arange(len(values))
    axes.plot(depths, list(values.values()), marker="o", color=colour, label=label)
    known = [(at, *intervals[k]) for at, k in enumerate(values) if None not in intervals[k]]
    if known:
        at, low, high = np.array(known, float).T
        axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xticks(depths, list(values))


def _axes(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
