"""The graph of places against brute force, across zones, the 180th meridian and near the poles."""

from __future__ import annotations

import numpy as np
import pytest

from serving.tracks.place_graph import MAX_NEAR, PlaceGraph, Views, points_of
from storage.position import Position, Positions


@pytest.mark.parametrize(
    ("lat", "lon"), [(48.2, 16.4), (48.2, 17.9999), (0.0, 180.0), (79.5, -30.0), (-33.9, 18.4)]
)
def test_distances_are_those_on_the_ground(lat: float, lon: float) -> None:
    generator = np.random.default_rng(1)
    metres = generator.uniform(-100, 100, (30, 2))
    lons = lon + metres[:, 0] / (111_320 * np.cos(np.radians(lat)))
    places = [
        Position(lat=lat + y / 111_200, lon=(x + 180) % 360 - 180)
        for x, y in zip(lons, metres[:, 1], strict=True)
    ]
    points = points_of(Positions.of(places))
    for a in range(0, 30, 7):
        for b in range(30):
            on_ground = places[a].distance_m(places[b])
            # Euclidean in UTM within a zone: up to 0.1 % from the ground at its border.
            assert on_ground is not None
            assert abs(np.linalg.norm(points[a] - points[b]) - on_ground) <= 0.002 * on_ground + 1e-3


def test_unnamed_zones_lie_on_their_plane_and_unknown_positions_nowhere() -> None:
    positions = Positions.of(
        [Position(utm_e=500_000.0, utm_n=10.0), Position(utm_e=500_003.0, utm_n=14.0), Position()]
    )
    points = points_of(positions)
    assert np.linalg.norm(points[0] - points[1]) == 5.0
    assert np.isnan(points[2]).all()


@pytest.mark.parametrize("reach_m", [15.0, 60.0, 250.0])
def test_edges_are_all_pairs_within_reach(reach_m: float) -> None:
    generator = np.random.default_rng(2)
    points = np.column_stack([generator.uniform(-300, 300, (60, 2)), generator.uniform(0, 5, 60)])
    edges = Views(points, np.full(60, np.nan)).edges(reach_m)
    apart = np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=2))
    expected = {(a, b) for a, b in zip(*np.nonzero(apart <= reach_m), strict=True)}
    if max(np.bincount([a for a, _ in expected])) <= MAX_NEAR:
        assert set(zip(edges.sources.tolist(), edges.targets.tolist(), strict=True)) == expected
    np.testing.assert_allclose(edges.metres, apart[edges.sources, edges.targets])
    assert (np.diff(edges.sources) >= 0).all()


def test_crowded_places_keep_their_nearest_neighbours() -> None:
    points = np.column_stack([np.arange(200) * 0.7, np.zeros(200), np.zeros(200)])
    edges = Views(points, np.full(200, np.nan)).edges(100.0)
    assert np.bincount(edges.sources).max() == MAX_NEAR
    here = edges.metres[edges.sources == 100]
    assert here[0] == 0.0
    assert here.max() <= 0.7 * MAX_NEAR / 2 + 1e-6


def test_images_of_one_position_and_direction_are_one_view() -> None:
    points = np.array([[0.0, 0, 0], [0.1, 0, 0], [0, 0, 0], [40, 0, 0], [np.nan] * 3])
    graph = PlaceGraph(points, np.array([10.0, 12.0, 200.0, np.nan, 10.0]))
    assert len(graph.views) == 3
    assert graph.view_of[0] == graph.view_of[1] != graph.view_of[2]
    assert graph.view_of[4] == -1
    assert (graph.view_of[graph.image_of] == np.arange(3)).all()


def test_a_region_holds_what_is_near_and_not_the_whole_store() -> None:
    points = np.column_stack([np.arange(1000) * 10.0, np.zeros(1000), np.zeros(1000)])
    graph = PlaceGraph(points, np.full(1000, np.nan))
    region = graph.around(graph.view_of[[500]])
    near = np.flatnonzero(np.abs(points[:, 0] - 5000) <= 120)
    assert set(graph.view_of[near]) <= set(region)
    assert len(region) < 50
