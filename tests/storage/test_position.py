"""Positions: distances within a zone, across zones and across the equator; conversion between systems."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
import utm

from storage.position import Position, Positions, within
from tests.support.positions import at, utm_only

GEOD = pyproj.Geod(ellps="WGS84")


def test_within_a_zone_distance_is_that_of_utm() -> None:
    a, b = Position(utm_e=500_000.0, utm_n=4_000_000.0, utm_zone="33T"), at(52.0, 14.0)
    assert a.distance_m(Position(utm_e=500_003.0, utm_n=4_000_004.0, utm_zone="33S")) == pytest.approx(5.0)
    assert b.distance_m(b) == 0.0


@pytest.mark.parametrize("lat", [48.0, -33.9, 0.5, 63.0])
@pytest.mark.parametrize("kind", ["both", "utm", "no_band", "degrees"])
def test_across_the_border_of_two_zones_the_geodesic_is_measured(lat: float, kind: str) -> None:
    # 12 degrees east is where zone 32 ends and zone 33 begins.
    left, right = at(lat, 12 - 1e-4), at(lat, 12 + 1e-4)
    assert (left.utm_zone or "")[:2] == "32"
    assert (right.utm_zone or "")[:2] == "33"
    truth = GEOD.inv(12 - 1e-4, lat, 12 + 1e-4, lat)[2]
    if kind == "no_band" and lat < 0:
        right = utm_only(right, band=False)  # the other one's hemisphere is assumed
    elif kind != "both":
        left, right = (
            Position(lat=p.lat, lon=p.lon) if kind == "degrees" else utm_only(p, band=kind == "utm")
            for p in (left, right)
        )
    assert left.distance_m(right) == pytest.approx(truth, abs=2e-3)
    assert right.distance_m(left) == pytest.approx(truth, abs=2e-3)


def test_across_the_equator_the_geodesic_is_measured() -> None:
    north, south = utm_only(at(1e-4, 36.8)), utm_only(at(-1e-4, 36.8))
    assert north.utm_zone == "37N"
    assert south.utm_zone == "37M"
    assert north.distance_m(south) == pytest.approx(GEOD.inv(36.8, 1e-4, 36.8, -1e-4)[2], abs=1e-3)


def test_across_the_date_line() -> None:
    assert at(-17.0, 179.9999).distance_m(at(-17.0, -179.9999)) == pytest.approx(21.3, abs=0.1)


def test_an_unknown_zone_is_assumed_to_be_the_other_ones() -> None:
    a = Position(utm_e=10.0, utm_n=0.0)
    assert a.distance_m(Position(utm_e=10.0, utm_n=7.0, utm_zone="33U")) == 7.0
    assert a.distance_m(Position(utm_e=13.0, utm_n=4.0)) == 5.0


def test_an_unknown_position_has_no_distance() -> None:
    assert Position().distance_m(at(10.0, 10.0)) is None
    assert not Position().known
    assert not within(np.array([np.nan]), 1e9).any()


def test_the_radius_is_inclusive_for_coordinates_in_centimetres() -> None:
    a, b = Position(utm_e=0.1, utm_n=0.0), Position(utm_e=25.1, utm_n=0.0)
    assert within(Positions.of([a]).distances_m(b), 25.0).all()
    assert not within(Positions.of([a]).distances_m(b), 24.99).any()


def test_completed_fills_in_the_other_system() -> None:
    whole = Position(lat=-33.9, lon=151.2).completed()
    assert whole.utm_zone == "56H"
    back = utm_only(whole).completed()
    assert back.lat == pytest.approx(-33.9, abs=1e-6)
    assert utm_only(whole, band=False).completed().lat is None
    with pytest.raises(ValueError, match="latitude"):
        Position(lat=89.0, lon=0.0).completed()


def test_zones_agree_with_utm() -> None:
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(-79, 83, 200), rng.uniform(-180, 180, 200)
    columns = Positions.from_columns({"lat": lat, "lon": lon})
    for row in range(200):
        e, n, number, _ = utm.from_latlon(lat[row], lon[row])
        np.testing.assert_allclose(columns.utm_m[row], (e, n), atol=1e-6)
        assert columns.zones[row] == number


def test_on_one_plane_keeps_distances_between_two_zones() -> None:
    places = [Position(), at(50.0, 11.999), utm_only(at(50.0, 12.001)), Position(lat=86.0, lon=12.0)]
    points = Positions.of(places).on_one_plane()
    assert points[1].tolist() == [places[1].utm_e, places[1].utm_n]
    assert np.hypot(*(points[1] - points[2])) == pytest.approx(places[1].distance_m(places[2]), rel=1e-3)
    assert np.isnan(points[[0, 3]]).all()
    nameless = [Position(utm_e=1.0, utm_n=2.0), Position(utm_e=3.0, utm_n=4.0)]
    assert Positions.of(nameless).on_one_plane().tolist() == [[1.0, 2.0], [3.0, 4.0]]
