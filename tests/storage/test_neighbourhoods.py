"""Radius search over positions, compared with the distances of all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from storage.neighbourhoods import nearby
from storage.position import Position, Positions
from tests.support.positions import at, utm_only


def scattered(count: int, seed: int, *, lat: float, kinds: tuple[str, ...]) -> list[Position]:
    """Draw positions within some hundred metres of a border of zones, given in different ways."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        position = at(lat + rng.normal(scale=5e-4), 12 + rng.normal(scale=5e-4))
        kind = rng.choice(kinds)
        if kind == "utm":
            position = utm_only(position)
        elif kind == "degrees":
            position = Position(lat=position.lat, lon=position.lon)
        elif kind == "nowhere":
            position = Position()
        drawn.append(position)
    return drawn


@pytest.mark.parametrize("lat", [48.0, -48.0, 0.0])
@pytest.mark.parametrize("kinds", [("both",), ("utm",), ("both", "utm", "degrees", "nowhere")])
def test_nearby_equals_comparing_all_pairs(lat: float, kinds: tuple[str, ...]) -> None:
    here, there = scattered(15, 1, lat=lat, kinds=kinds), scattered(40, 2, lat=lat, kinds=kinds)
    near = nearby(Positions.of(here), Positions.of(there), 60.0)
    across = 0
    all_metres = [[position.distance_m(other) for other in there] for position in here]
    for i, (position, metres) in enumerate(zip(here, all_metres, strict=True)):
        expected = [j for j, distance in enumerate(metres) if distance is not None and distance <= 60.0]
        assert near.of(i).tolist() == expected
        distances = near.distances_m[near.ends[i] : near.ends[i + 1]]
        np.testing.assert_allclose(distances, [metres[j] for j in expected], atol=1e-6)
        across += sum((there[j].utm_zone or "")[:2] != (position.utm_zone or "")[:2] for j in expected)
    assert across > 8
    assert near.up_to(30.0).counts().tolist() == [
        sum(distance is not None and distance <= 30.0 for distance in metres) for metres in all_metres
    ]


def test_nearby_without_positions_is_empty() -> None:
    nothing = Positions.of([])
    some = Positions.of([at(48.0, 11.0)])
    assert nearby(nothing, some, 10.0).ends.tolist() == [0]
    assert nearby(some, nothing, 10.0).ends.tolist() == [0, 0]
    assert nearby(some, Positions.of([Position()]), 10.0).counts().tolist() == [0]


def test_nearby_beyond_the_range_of_utm() -> None:
    pole = [Position(lat=89.9, lon=lon) for lon in (0.0, 1e-3, 90.0)]
    assert nearby(Positions.of(pole), Positions.of(pole), 10.0).of(0).tolist() == [0, 1]
