"""Tracks as JSON of the command line and HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from serving.tracks.whereabouts import Located

__all__ = ["located_dict", "summary_of"]

LOST = 0.5  # least probability of a frame that is called lost


def located_dict(located: Located) -> dict[str, Any]:
    """Return where a frame was taken; a lost frame has no position."""
    state = "known" if located.known else "lost" if located.lost >= LOST else "unsure"
    position = None if state == "lost" or located.position is None else located.position
    return {
        "state": state,
        "known": located.known,
        "position": None
        if position is None
        else {
            "lat": _rounded(position.lat, 7),
            "lon": _rounded(position.lon, 7),
            "utm_e": _rounded(position.utm_e, 2),
            "utm_n": _rounded(position.utm_n, 2),
            "utm_zone": position.utm_zone,
        },
        "radius_m": None if position is None else _rounded(located.radius_m, 1),
        "heading_deg": None if position is None else _rounded(located.heading_deg, 1),
        "probability": round(located.probability, 4),
        "lost": round(located.lost, 4),
        "image_id": None if position is None else located.image_id,
    }


def summary_of(frames: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return how many frames are in which state."""
    states: Iterable[str] = (frame["state"] for frame in frames)
    counts = {"frames": len(frames), "known": 0, "lost": 0, "unsure": 0}
    for state in states:
        counts[state] += 1
    return counts


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
