"""Draws the file of `--trace` as an SVG timeline with one lane per process."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

__all__ = ["busy_seconds", "draw_timeline"]

_STAGES = {"decode": "#4c78a8", "extract": "#e45756", "write": "#54a24b", "commit": "#b279a2"}
_WIDTH, _LANE, _LEFT = 1000, 18, 120


def busy_seconds(spans: list[dict[str, Any]]) -> dict[str, float]:
    """Return the CPU seconds of each stage, summed over its processes."""
    busy: dict[str, float] = defaultdict(float)
    for span in spans:
        busy[span["stage"]] += span["cpu_s"]
    return {stage: busy[stage] for stage in _STAGES}


def draw_timeline(spans: list[dict[str, Any]]) -> str:
    """Return an SVG with a lane for each process of each stage.

    Args:
        spans: Lines of the trace: stage, pid, begin_s, end_s, rows.
    """
    first, last = min(s["begin_s"] for s in spans), max(s["end_s"] for s in spans)
    lanes = sorted({(list(_STAGES).index(s["stage"]), s["pid"]) for s in spans})
    scale = (_WIDTH - _LEFT) / (last - first)
    height = _LANE * (len(lanes) + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    for at, (stage, _) in enumerate(lanes):
        parts.append(f'<text x="4" y="{_LANE * at + 13}">{list(_STAGES)[stage]} {at + 1}</text>')
    for span in spans:
        at = lanes.index((list(_STAGES).index(span["stage"]), span["pid"]))
        left = _LEFT + scale * (span["begin_s"] - first)
        width = max(0.5, scale * (span["end_s"] - span["begin_s"]))
        parts.append(
            f'<rect x="{left:.1f}" y="{_LANE * at + 3}" width="{width:.1f}" height="{_LANE - 5}" '
            f'fill="{_STAGES[span["stage"]]}"><title>{span["rows"]} rows</title></rect>'
        )
    for tenth in range(11):
        x, seconds = _LEFT + (_WIDTH - _LEFT - 30) * tenth / 10, (last - first) * tenth / 10
        parts.append(f'<text x="{x:.0f}" y="{height - _LANE}">{seconds:.1f} s</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
