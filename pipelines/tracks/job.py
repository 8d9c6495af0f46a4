"""Follows a drive: answers its frames from a store, and finds the way that explains all of them.

placeray track frames/ --store ~/city --odometry odometry.csv
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from models.images import ImageRejected
from pipelines.tracks.frames import BadDrive, frames_of
from pipelines.tracks.odometry import read_odometry
from serving.answer import Match
from serving.engine import QueryEngine
from serving.matching_options import default_candidates
from serving.query import Rerank
from serving.tracks.answers import located_dict, summary_of
from serving.tracks.city_map import CityMap
from serving.tracks.defaults import DEFAULT_FPS, DEFAULT_LAG
from serving.tracks.motion import Motion, at_rate, at_speed
from serving.tracks.tracker import track

__all__ = ["follow_drive"]


def follow_drive(
    engine: QueryEngine,
    frames: Sequence[str],
    *,
    fps: float | None = None,
    speed_m_per_s: float | None = None,
    odometry: str | None = None,
    lag: int = DEFAULT_LAG,
    candidates: int | None = None,
    rerank: Rerank = True,
    progress: Callable[[int, int, int], None] = lambda done, rejected, total: None,
) -> dict[str, Any]:
    """Return where each frame of a drive was taken.

    Args:
        engine: Answers the frames.
        frames: One folder, or files in their order.
        fps: Frames per second; default: 1.
        speed_m_per_s: Of the vehicle; default: not known.
        odometry: CSV file, see `read_odometry`.
        lag: How many further frames each position knows.
        candidates: As of `QueryEngine.answer`.
        rerank: As of `QueryEngine.answer`.
        progress: Called with (done, rejected, total).

    Returns:
        `frames`, one dict per frame, a `summary`, and what answered, ready for JSON.

    Raises:
        BadDrive: frames or odometry cannot be used.
        StoreError: the store cannot be read.
    """
    paths = frames_of(frames)
    motions = _motions(paths, fps, speed_m_per_s, odometry)
    snapshot, started = engine.store.snapshot, time.perf_counter()
    matches: list[Sequence[Match] | None] = []
    errors: dict[int, dict[str, str]] = {}
    wanted = candidates or default_candidates(engine.store.card)
    for number, answer in enumerate(
        engine.answer_many(paths, top_k=wanted, candidates=wanted, rerank=rerank)
    ):
        if isinstance(answer, ImageRejected):
            errors[number] = {"reason": answer.reason, "message": str(answer)}
            matches.append(None)
        else:
            matches.append(answer.matches)
        progress(number + 1, len(errors), len(paths))
    answered = time.perf_counter()
    located = [located_dict(each) for each in track(matches, CityMap.of(snapshot), motions, lag=lag)]
    tracked = time.perf_counter()
    listed = [
        {"image": path, **where, **({"error": errors[number]} if number in errors else {})}
        for number, (path, where) in enumerate(zip(paths, located, strict=True))
    ]
    count = max(1, len(paths))
    return {
        "model": engine.store.card.model,
        "store_version": snapshot.version,
        "lag": lag,
        "summary": summary_of(listed) | {"rejected": len(errors)},
        "ms_per_frame": {
            "answer": round(1e3 * (answered - started) / count, 2),
            "track": round(1e3 * (tracked - answered) / count, 2),
        },
        "frames": listed,
    }


def _motions(
    paths: Sequence[str], fps: float | None, speed_m_per_s: float | None, odometry: str | None
) -> list[Motion]:
    if odometry is not None:
        if fps is not None or speed_m_per_s is not None:
            raise BadDrive("an odometry file tells distances itself: leave --fps and --speed out")
        return read_odometry(odometry, paths)
    if speed_m_per_s is not None:
        return at_speed(len(paths), speed_m_per_s, fps or DEFAULT_FPS)
    return at_rate(len(paths), fps or DEFAULT_FPS)
