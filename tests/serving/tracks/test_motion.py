"""How edges fit what is known about a vehicle."""

from __future__ import annotations

import numpy as np
import pytest

from serving.tracks.motion import Motion, Moves, at_rate, at_speed

METRES = np.arange(0.0, 60.0, 5.0)
STRAIGHT = np.zeros(len(METRES))


def test_the_edge_as_long_as_the_way_fits_best() -> None:
    weights = Moves(10.0).weights(METRES, STRAIGHT, Motion(distance_m=20.0))
    assert METRES[np.argmax(weights)] == 20.0
    assert weights.max() == pytest.approx(1.0)


def test_without_a_distance_near_edges_fit_better_and_far_ones_not_at_all() -> None:
    (motion,) = at_rate(1, 2.0)
    weights = Moves(10.0).weights(METRES, STRAIGHT, motion)
    assert (np.diff(weights) <= 0).all()
    assert weights[0] == weights[1] == 1.0
    assert not weights[METRES > 25.0].any(), "30 m/s, and one spacing"


def test_edges_that_turn_as_the_vehicle_fit_better() -> None:
    turns = np.array([0.0, 90.0, -90.0, 450.0, np.nan])
    weights = Moves(10.0).weights(np.full(5, 5.0), turns, Motion(distance_m=5.0, turn_deg=90.0))
    assert weights[1] == pytest.approx(weights[3])
    assert weights[1] > weights[0] > weights[2] > 0
    assert weights[4] >= weights[1], "headings that nobody knows contradict nothing"


def test_reach_holds_every_way_and_is_bounded() -> None:
    moves = Moves(10.0)
    assert moves.reach_m([]) >= 10.0
    assert moves.reach_m(at_speed(3, 30.0)) > 30.0
    assert moves.reach_m([Motion(distance_m=1e6)]) == 250.0


def test_what_counts_of_a_frame_grows_with_the_way() -> None:
    weights = [Motion(distance_m=metres).weight for metres in (0.0, 1.0, 2.0, 5.0, 8.0, 12.0, 16.0, 50.0)]
    assert weights == sorted(weights)
    assert 0 < weights[0] < 0.05
    assert weights[3] == weights[4] == 0.5
    assert weights[-1] == weights[-2] == 1.0
    assert at_rate(1, 30.0)[0].weight < 0.1 < at_rate(1, 1.0)[0].weight
