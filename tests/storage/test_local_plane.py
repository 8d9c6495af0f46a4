"""The plane that positions are averaged on: right across zones, at 180 degrees and near the poles."""

from __future__ import annotations

import numpy as np
import pytest

from storage.local_plane import LocalPlane
from storage.position import Position, Positions, geodesics

PLACES = {
    "Vienna": (48.2, 16.37),
    "a border of zones": (48.2, 17.9999),
    "the 180th meridian": (-16.5, 179.9995),
    "the equator": (0.0003, 32.58),
    "Svalbard": (78.22, 15.64),
    "beyond UTM": (86.4, 31.0),
    "the South Pole": (-89.9995, 10.0),
}


def around(lat: float, lon: float, *, count: int = 12, reach_m: float = 300.0) -> list[Position]:
    random = np.random.default_rng(7)
    geod = geodesics()
    places = [Position(lat, lon)]
    for _ in range(count):
        east, north, _ = geod.fwd(lon, lat, random.uniform(0, 360), random.uniform(0, reach_m))
        places.append(Position(float(north), float((east + 180) % 360 - 180)))
    return places


@pytest.mark.parametrize("name", PLACES)
def test_distances_on_the_plane_are_those_on_the_ellipsoid(name: str) -> None:
    places = around(*PLACES[name])
    columns = Positions.of(places)
    plane = LocalPlane.around(columns)
    points = plane.points(columns)
    assert np.allclose(points[0], 0, atol=1e-6)
    for here, point in zip(places, points, strict=True):
        _, _, metres = geodesics().inv(places[0].lon, places[0].lat, here.lon, here.lat)
        # Within its zone UTM shortens or stretches by up to 1 in 1000.
        assert np.hypot(*point) == pytest.approx(metres, rel=1.2e-3, abs=0.01)


@pytest.mark.parametrize("name", PLACES)
def test_a_point_leads_back_to_its_position(name: str) -> None:
    places = around(*PLACES[name])
    columns = Positions.of(places)
    plane = LocalPlane.around(columns)
    for here, point in zip(places, plane.points(columns), strict=True):
        back = plane.position(point)
        assert back.lat is not None
        assert back.lon is not None
        _, _, metres = geodesics().inv(here.lon, here.lat, back.lon, back.lat)
        assert metres < 0.01
        assert (back.utm_e is None) == (abs(here.lat or 0) > 84 or (here.lat or 0) < -80)


@pytest.mark.parametrize("name", PLACES)
def test_the_middle_of_two_positions_is_as_far_from_both(name: str) -> None:
    lat, lon = PLACES[name]
    geod = geodesics()
    east, north, _ = geod.fwd(lon, lat, 77.0, 120.0)
    ends = Positions.of([Position(lat, lon), Position(float(north), float((east + 180) % 360 - 180))])
    plane = LocalPlane.around(ends)
    middle = plane.position(plane.points(ends).mean(axis=0))
    for lat_lon in ends.degrees:
        assert geod.inv(lat_lon[1], lat_lon[0], middle.lon, middle.lat)[2] == pytest.approx(60.0, abs=0.2)


def test_metres_without_degrees_stay_metres() -> None:
    columns = Positions.of([Position(utm_e=500.0, utm_n=20.0), Position(utm_e=510.0, utm_n=20.0)])
    plane = LocalPlane.around(columns)
    assert plane.in_zone
    assert plane.position(np.array([5.0, 0.0])) == Position(utm_e=505.0, utm_n=20.0)


def test_unknown_positions_have_no_point_and_no_plane() -> None:
    columns = Positions.of([Position(48.0, 16.0), Position()])
    assert np.isnan(LocalPlane.around(columns).points(columns)[1]).all()
    with pytest.raises(ValueError, match="known position"):
        LocalPlane.around(columns.take(np.array([1])))
