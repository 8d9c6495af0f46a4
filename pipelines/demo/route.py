"""The route of a drive through the procedural city, and the vehicle that drives along it, frame by frame.

A route is a walk over crossings: straight on or around a corner, never back. In the middle it leaves the
photographed streets for those around them, and comes back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import numpy as np
from numpy.typing import NDArray

from pipelines.demo.plan import MARGIN_LINES, City, Place

__all__ = ["Crossing", "Motion", "drive_along", "plan_route", "road_of"]

Floats = NDArray[np.float64]
Crossing = tuple[int, int]
"""Index of the street running north, and of the one running east."""

LANE_M = 2.0  # to the right of the street's middle
CORNER_M = 9.0  # from the crossing to where a turn begins
CRUISE_M_PER_S, TURNING_M_PER_S, ACCELERATION = 8.0, 4.0, 1.8
SLOW_M = 14.0  # before and after a crossing where the route turns
STOP_S = (3.0, 6.0)
STRAIGHT_ON = 0.5  # of the choices at a crossing
STOPS = 0.35  # of the crossings
BEFORE_OUTSIDE = 0.25  # of the length
_STEP_M, _STEPS_PER_S = 0.25, 10


@dataclass(frozen=True)
class Motion:
    """The vehicle at one frame.

    Attributes:
        x_m: East of the city's corner.
        y_m: North of the city's corner.
        heading_deg: Compass direction of travel.
        travelled_m: Since the first frame.
        time_s: Since the first frame.
    """

    x_m: float
    y_m: float
    heading_deg: float
    travelled_m: float
    time_s: float


def plan_route(city: City, places: list[Place], *, length_m: float, seed: object) -> list[Crossing]:
    """Plan a walk over crossings of at least a length, with one stretch outside the photographed streets.

    Args:
        city: The city.
        places: Those that the database has pictures of.
        length_m: Least length.
        seed: The walk follows from it.

    Raises:
        ValueError: no street between two crossings is photographed as a whole.
    """
    random = Random(f"{city.seed}/route/{seed}")
    inside = _photographed(city, places)
    if not inside:
        raise ValueError("no street between two crossings is photographed as a whole: draw a larger city")
    starts = sorted(inside)
    route = [random.choice(starts)]
    route.append(random.choice(sorted(inside[route[0]])))
    _walk(city, route, inside, BEFORE_OUTSIDE * length_m, random)
    route += _outside(city, route, inside, random)
    _walk(city, route, inside, length_m, random)
    return route


def _photographed(city: City, places: list[Place]) -> dict[Crossing, set[Crossing]]:
    """Return the crossings that photographed streets join, as neighbours of each other."""
    along = {
        (axis, line): sorted(place.along_m for place in places if (place.axis, place.line) == (axis, line))
        for axis, line in city.streets()
    }
    joined: dict[Crossing, set[Crossing]] = {}
    for (axis, line), metres in along.items():
        across = city.lines_m[1 - axis]
        for first in range(MARGIN_LINES, len(across) - 1 - MARGIN_LINES):
            here = [m for m in metres if across[first] <= m <= across[first + 1]]
            gaps = np.diff([across[first], *here, across[first + 1]])
            if gaps.max() > 1.6 * max(10.0, float(np.median(np.diff(metres))) if len(metres) > 1 else 0.0):
                continue
            a, b = ((first, line), (first + 1, line)) if axis == 0 else ((line, first), (line, first + 1))
            joined.setdefault(a, set()).add(b)
            joined.setdefault(b, set()).add(a)
    return joined


def _walk(
    city: City,
    route: list[Crossing],
    inside: dict[Crossing, set[Crossing]],
    length_m: float,
    random: Random,
) -> None:
    """Extend a route over photographed streets until it has a length."""
    while _length_m(city, route) < length_m:
        here, before = route[-1], route[-2]
        onward = (2 * here[0] - before[0], 2 * here[1] - before[1])
        ways = sorted(inside[here] - {before}) or [before]
        straight = onward in ways and random.random() < STRAIGHT_ON
        route.append(onward if straight else random.choice(ways))


def _outside(
    city: City, route: list[Crossing], inside: dict[Crossing, set[Crossing]], random: Random
) -> list[Crossing]:
    """Return the way out of the photographed streets, along two blocks of the outer street, and back."""
    last = (len(city.lines_m[1]) - 1 - MARGIN_LINES, len(city.lines_m[0]) - 1 - MARGIN_LINES)
    border = {c for c in inside if MARGIN_LINES in c or c[0] == last[0] or c[1] == last[1]}
    way = _shortest(route[-1], border, inside)
    exit_at = way[-1] if way else route[-1]
    axis = 0 if exit_at[0] in (MARGIN_LINES, last[0]) else 1
    out = -1 if exit_at[axis] == MARGIN_LINES else 1
    step = random.choice((-1, 1))
    if exit_at[1 - axis] + 2 * step not in range(MARGIN_LINES, last[1 - axis] + 1):
        step = -step
    blocks = [
        b for b in (1, 2) if exit_at[1 - axis] + b * step in range(MARGIN_LINES, last[1 - axis] + 1)
    ] or [0]
    beyond = [_moved(exit_at, axis, out, 0), *(_moved(exit_at, axis, out, b * step) for b in blocks if b)]
    back = _moved(exit_at, axis, 0, blocks[-1] * step)
    if back not in inside:
        beyond, back = beyond[:1], exit_at
    return [*way, *beyond, back]


def _moved(crossing: Crossing, axis: int, out: int, along: int) -> Crossing:
    """Return the crossing some lines outwards along one axis and some along the other."""
    moved = [0, 0]
    moved[axis], moved[1 - axis] = crossing[axis] + out, crossing[1 - axis] + along
    return moved[0], moved[1]


def _shortest(start: Crossing, goals: set[Crossing], joined: dict[Crossing, set[Crossing]]) -> list[Crossing]:
    """Return the crossings after the first on the way to the nearest goal (breadth first)."""
    came_from: dict[Crossing, Crossing | None] = {start: None}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        if here in goals:
            way = [here]
            while (before := came_from[way[-1]]) is not None:
                way.append(before)
            return way[-2::-1]
        for other in sorted(joined[here]):
            if other not in came_from:
                came_from[other] = here
                queue.append(other)
    return []


def _length_m(city: City, route: list[Crossing]) -> float:
    return sum(math.dist(_point(city, a), _point(city, b)) for a, b in pairwise(route))


def _point(city: City, crossing: Crossing) -> tuple[float, float]:
    return city.lines_m[1][crossing[0]], city.lines_m[0][crossing[1]]


def road_of(city: City, route: list[Crossing]) -> tuple[Floats, Floats]:
    """Return the lane along a route as points, and how far along it corners are.

    Returns:
        (N, 2) float64 metres, a quarter of a metre apart, corners rounded; (C,) float64 metres along.
    """
    nodes = np.array([_point(city, crossing) for crossing in route])
    parts: list[Floats] = []
    corners: list[int] = []
    start = nodes[0]
    for before, here, after in zip(nodes, nodes[1:], nodes[2:], strict=False):
        come = (here - before) / np.hypot(*(here - before))
        leave = (after - here) / np.hypot(*(after - here))
        a, b = here - CORNER_M * come, here + CORNER_M * leave
        parts.append(_line(start, a))
        turn = np.linspace(0, 1, 60)[:, None]
        if abs(float(come @ leave)) < 0.5:
            corners.append(sum(map(len, parts)) + 30)
        parts.append((1 - turn) ** 2 * a + 2 * turn * (1 - turn) * here + turn**2 * b)
        start = b
    parts.append(_line(start, nodes[-1]))
    raw = np.concatenate(parts)
    ahead = np.gradient(raw, axis=0)
    ahead /= np.maximum(np.hypot(*ahead.T), 1e-9)[:, None]
    lane = raw + LANE_M * np.stack([ahead[:, 1], -ahead[:, 0]], axis=1)
    travelled = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(lane, axis=0).T))])
    at = np.arange(0.0, travelled[-1], _STEP_M)
    points = np.stack([np.interp(at, travelled, lane[:, k]) for k in (0, 1)], axis=1)
    return points, travelled[corners] if corners else np.empty(0)


def _line(a: Floats, b: Floats) -> Floats:
    count = max(2, int(np.hypot(*(b - a))))
    return np.asarray(a + (b - a) * np.linspace(0, 1, count)[:, None])


def drive_along(
    points: Floats, corners_m: Floats, *, frames: int, frames_per_s: float, seed: object
) -> Iterator[Motion]:
    """Drive along a lane: slower around corners, at rest before some of them.

    Args:
        points: (N, 2) float64, as of `road_of`.
        corners_m: (C,) float64, as of `road_of`.
        frames: At most; fewer where the lane ends.
        frames_per_s: Of the camera.
        seed: Stops follow from it.
    """
    random = Random(f"drive/{seed}")
    halts = {float(at): random.uniform(*STOP_S) for at in corners_m if random.random() < STOPS}
    waits = sorted((max(at - SLOW_M, 0.0), seconds) for at, seconds in halts.items())
    ahead = np.unwrap(np.arctan2(*np.gradient(points, axis=0).T))  # east, north: compass bearings
    end_m, at_m, speed, resting, tick = _STEP_M * (len(points) - 1), 0.0, CRUISE_M_PER_S, 0.0, 0
    for frame in range(frames):
        while tick < round(frame * _STEPS_PER_S / frames_per_s):
            tick += 1
            near = len(corners_m) and np.abs(corners_m - at_m).min() < SLOW_M
            goal = TURNING_M_PER_S if near else CRUISE_M_PER_S
            if waits and at_m >= waits[0][0]:
                speed, resting = 0.0, waits.pop(0)[1]
            if resting > 0:
                resting -= 1 / _STEPS_PER_S
                continue
            change = ACCELERATION / _STEPS_PER_S
            speed += min(max(goal - speed, -2 * change), change)
            at_m += speed / _STEPS_PER_S
        if at_m > end_m:
            return
        row = int(at_m / _STEP_M)
        heading = math.degrees(float(ahead[row])) % 360.0
        east, north = points[row].tolist()
        yield Motion(east, north, heading, at_m, frame / frames_per_s)
