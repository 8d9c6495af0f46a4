"""Curves of a training run as SVG: columns of its log against the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["LOSSES", "MAX_POINTS", "RECALLS", "draw_chart"]

Points = list[tuple[float, float]]

MAX_POINTS = 200  # of each line
_MARKED_POINTS = 60
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 500, 260, 62, 28, 12, 46


@dataclass(frozen=True)
class _Line:
    """One column of the log as it is drawn; lines of one chart differ in colour and in dashes."""

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


def _thinned(points: Points) -> Points:
    """Keep both ends and, of each stretch, the lowest and the highest: no peak is lost."""
    if len(points) <= MAX_POINTS:
        return points
    stretch = math.ceil(2 * len(points) / (MAX_POINTS - 2))
    kept = {0, len(points) - 1}
    for start in range(0, len(points), stretch):
        part = range(start, min(start + stretch, len(points)))
        kept |= {min(part, key=lambda i: points[i][1]), max(part, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


def _ticks(low: float, high: float, *, least: float = 0.0) -> list[float]:
    """Return round numbers 1, 2 or 5 times a power of ten apart, and not less than `least`, over a range."""
    rough = max((high - low) / 5, least) or 0.2
    unit = 10.0 ** math.floor(math.log10(rough))
    apart = next((unit * times for times in (1, 2, 5) if unit * times >= rough * 0.999), unit * 10)
    first, last = math.floor(low / apart), math.ceil(high / apart)
    return [i * apart for i in range(first, max(last, first + 1) + 1)]


def draw_chart(
    rows: Sequence[Mapping[str, Any]], title: str, unit: str, highest: float | None, lines: Sequence[_Line]
) -> str:
    """Draw columns of the log against the step, from 0 to `highest` or to the largest value."""
    points = {line: some for line in lines if (some := _points(rows, line.column))}
    if not points:
        return f"<figure><figcaption>{title}: nothing was logged.</figcaption></figure>"
    values = [y for some in points.values() for _, y in some]
    xs = _ticks(0.0, max(x for some in points.values() for x, _ in some), least=1.0)
    ys = _ticks(min(0.0, *values), max(values) if highest is None else highest)
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        up = (y - ys[0]) / (ys[-1] - ys[0])
        return _LEFT + width * (x - xs[0]) / (xs[-1] - xs[0]), _TOP + height * (1.0 - up)

    drawn = _axes(xs, ys, unit, at)
    legend, said = "", []
    for line, some in points.items():
        stroke = f'stroke="var({line.colour})" stroke-width="2" stroke-dasharray="{line.dashes}"'
        places = [at(x, y) for x, y in _thinned(some)]
        drawn += (
            f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}" fill="none" {stroke}/>'
        )
        if len(places) <= _MARKED_POINTS:
            dots = (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in places)
            drawn += f'<g fill="var({line.colour})">{"".join(dots)}</g>'
        legend += f'<span><svg aria-hidden="true"><path d="M0 5H28" {stroke}/></svg> {line.label}</span> '
        said.append(f"{line.label} from {some[0][1]:.4g} to {some[-1][1]:.4g}")
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{title} by step: {"; ".join(said)}">{drawn}</svg>'
        f'<figcaption class="legend">{title}: {legend}</figcaption></figure>'
    )


def _axes(
    xs: Sequence[float], ys: Sequence[float], unit: str, at: Callable[[float, float], tuple[float, float]]
) -> str:
    """Draw rules with their numbers, and the names of both axes."""
    drawn, bottom, right = "", _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for value in ys:
        y = at(xs[0], value)[1]
        drawn += f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="var(--rule)"/>'
        drawn += f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:,.6g}</text>'
    for value in xs:
        x = at(value, ys[0])[0]
        drawn += f'<path d="M{x:.1f} {bottom}v5" stroke="var(--soft)"/>'
        drawn += f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{value:,.6g}</text>'
    middle = (_TOP + bottom) // 2
    return (
        f'{drawn}<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="var(--soft)"/>'
        f'<text x="{(_LEFT + right) // 2}" y="{_HEIGHT - 8}" text-anchor="middle">step</text>'
        f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{unit}</text>'
    )
