"""Curves of a training run: columns of its log against the step, prepared for `templates/chart.html`.

The template draws the SVG. matplotlib would be a heavy dependency for two line charts, and its SVG is several
times larger and has fixed colours, where these follow the page in light and dark.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["LOSSES", "MAX_POINTS", "RECALLS", "make_chart"]

Points = list[tuple[float, float]]

MAX_POINTS = 200  # of each line
_MARKED_POINTS = 60
_WIDTH, _HEIGHT = 500, 260
_MARGINS = {"left": 62, "right": 28, "top": 12, "bottom": 46}


@dataclass(frozen=True)
class _Line:
    """How one column of the log is drawn; lines of one chart differ in colour and in dashes."""

    column: str
    label: str
    colour: str
    dashes: str


LOSSES = (
    _Line("loss", "total", "--soft", "2 3"),
    _Line("triplet_loss", "triplet", "--rerank", "none"),
    _Line("local_loss", "local features", "--warm", "8 4"),
)
RECALLS = (
    _Line("recall_reranked_1", "R@1 re-ranked", "--rerank", "none"),
    _Line("recall_reranked_5", "R@5 re-ranked", "--rerank", "2 3"),
    _Line("recall_global_1", "R@1 global", "--warm", "8 4"),
    _Line("recall_global_5", "R@5 global", "--warm", "8 3 2 3"),
)


def _points(rows: Sequence[Mapping[str, Any]], column: str) -> Points:
    """Return (step, value) of a column where both are numbers that can be drawn."""
    pairs = ((row.get("step"), row.get(column)) for row in rows)
    return [(x, y) for x, y in pairs if isinstance(x, float) and isinstance(y, float) and abs(y) < 1e99]


def _thin_out(points: Points) -> Points:
    """Keep both ends and the lowest and highest point of each stretch, so that no peak is lost."""
    if len(points) <= MAX_POINTS:
        return points
    stretch = math.ceil(2 * len(points) / (MAX_POINTS - 2))
    rows = {0, len(points) - 1}
    for start in range(0, len(points), stretch):
        part = range(start, min(start + stretch, len(points)))
        rows |= {min(part, key=lambda i: points[i][1]), max(part, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(rows)]


def _ticks(low: float, high: float, *, min_step: float = 0.0) -> list[float]:
    """Return round numbers over a range, 1, 2 or 5 times a power of ten apart and at least `min_step`."""
    rough = max((high - low) / 5, min_step) or 0.2
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next((unit * times for times in (1, 2, 5) if unit * times >= rough * 0.999), unit * 10)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def make_chart(
    rows: Sequence[Mapping[str, Any]],
    title: str,
    unit: str,
    lines: Sequence[_Line],
    *,
    highest: float | None = None,
) -> dict[str, Any]:
    """Lay out a chart of columns of the log against the step.

    Args:
        rows: The log; values are numbers where they are known.
        title: What the chart shows.
        unit: Label of the vertical axis, which starts at 0 or the lowest value.
        lines: The columns; those without a number are left out.
        highest: Where the vertical axis ends; by default at the largest value.

    Returns:
        Values for the macro `draw` of `templates/chart.html`; positions are in its view box.
    """
    chart: dict[str, Any] = {"title": title, "unit": unit, "lines": []}
    points = {line: values for line in lines if (values := _points(rows, line.column))}
    if not points:
        return chart
    every = [point for values in points.values() for point in values]
    xs = _ticks(0.0, max(x for x, _ in every), min_step=1.0)
    ys = _ticks(min(0.0, *(y for _, y in every)), max(y for _, y in every) if highest is None else highest)
    width = _WIDTH - _MARGINS["left"] - _MARGINS["right"]
    height = _HEIGHT - _MARGINS["top"] - _MARGINS["bottom"]

    def across(x: float) -> float:
        return _MARGINS["left"] + width * (x - xs[0]) / (xs[-1] - xs[0])

    def down(y: float) -> float:
        return _MARGINS["top"] + height * (1.0 - (y - ys[0]) / (ys[-1] - ys[0]))

    for line, values in points.items():
        shown = _thin_out(values)
        chart["lines"].append(
            {
                **dataclasses.asdict(line),
                "points": [(across(x), down(y)) for x, y in shown],
                "marked": len(shown) <= _MARKED_POINTS,
                "range": f"{line.label} from {values[0][1]:.4g} to {values[-1][1]:.4g}",
            }
        )
    return chart | {
        "width": _WIDTH,
        "height": _HEIGHT,
        "margins": _MARGINS,
        "x_ticks": [(across(x), f"{x:,.6g}") for x in xs],
        "y_ticks": [(down(y), f"{y:,.6g}") for y in ys],
    }
