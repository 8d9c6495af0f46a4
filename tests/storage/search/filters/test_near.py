"""Rows within a radius, against the geodesics of PROJ asked row by row."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyproj
import pytest
import utm
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storage.position import Position
from storage.search.filters import BadFilter, Near
from tests.storage.search.filters.rows import held_by_sql, rows_at
from tests.support.positions import at, utm_only

GEOD = pyproj.Geod(ellps="WGS84")
LATITUDES = st.one_of(st.floats(-90, 90), st.sampled_from([0.0, 84.0, -80.0, 90.0, -90.0, 74.99, 75.01]))
LONGITUDES = st.one_of(st.floats(-180, 180), st.sampled_from([180.0, -180.0, 12.0, 179.9999]))
RADII = st.one_of(st.floats(0.01, 100), st.floats(100, 60_000), st.floats(60_000, 20_000_000))


def metres(near: Near, position: tuple[float, float]) -> float:
    return float(GEOD.inv(near.lon, near.lat, position[1], position[0])[2])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.builds(Near, lat=LATITUDES, lon=LONGITUDES, radius_m=RADII),
    st.lists(st.tuples(st.floats(-180, 180), st.floats(0, 2)), min_size=1, max_size=8),
)
@example(Near(0.0, 180.0, 5_000.0), [(90.0, 0.5), (-90.0, 0.99), (90.0, 1.01)])
@example(Near(89.9999, 10.0, 500.0), [(0.0, 0.9), (170.0, 0.9), (170.0, 1.1)])
@example(Near(74.9, -179.99, 49_999.0), [(270.0, 0.9995), (270.0, 1.0005)])
def test_exactly_the_rows_within_the_radius_are_left(near: Near, ways: list[tuple[float, float]]) -> None:
    """Rows lie in all directions, up to twice the radius away, many of them close to it."""
    shares = [share if i % 2 else 1 + (share - 1) / 500 for i, (_, share) in enumerate(ways)]
    spots = []
    for (azimuth, _), share in zip(ways, shares, strict=True):
        lon, lat, _ = GEOD.fwd(near.lon, near.lat, azimuth, share * near.radius_m)
        spots.append((float(lat), float(lon)))
    truth = [metres(near, spot) for spot in spots]
    inside = near.mask(rows_at([Position(lat=lat, lon=lon) for lat, lon in spots]))
    for there, away in zip(inside.tolist(), truth, strict=True):
        if abs(away - near.radius_m) > 1e-5:
            assert there == (away < near.radius_m), (near, away)


@pytest.mark.parametrize("lat", [48.0, -33.9, 0.0003, -0.0003, 71.0])
@pytest.mark.parametrize("lon", [12.0, -180.0, 179.9999])
def test_rows_in_utm_alone_are_found_across_the_borders_of_zones(lat: float, lon: float) -> None:
    near = Near(lat, lon, 300.0)
    spots = [GEOD.fwd(lon, lat, azimuth, share) for azimuth in range(0, 360, 30) for share in (290.0, 310.0)]
    positions = [utm_only(at(spot[1], spot[0])) for spot in spots]
    assert len({position.utm_zone for position in positions}) > 1
    assert near.mask(rows_at(positions)).tolist() == [True, False] * 12


def test_an_unknown_zone_is_taken_for_that_of_the_centre() -> None:
    east, north, _, _ = utm.from_latlon(-33.86, 151.2)
    spots = [Position(utm_e=east, utm_n=north + north_m) for north_m in (0.0, 90.0, 110.0)]
    assert Near(-33.86, 151.2, 100.0).mask(rows_at(spots)).tolist() == [True, True, False]
    assert not Near(48.0, 11.0, 100.0).mask(rows_at(spots)).any()


def test_rows_without_a_position_never_match() -> None:
    rows = rows_at([Position(), Position(utm_e=1.0), Position(lat=1.0), Position(lat=0.0, lon=0.0)])
    assert Near(0.0, 0.0, 20_000_000.0).mask(rows).tolist() == [False, False, False, True]
    assert Near(0.0, 0.0, 1.0).mask(rows_at([])).tolist() == []


@pytest.mark.parametrize("centre", [(0.0, 180.0), (0.0, -179.999), (-89.99, 5.0), (89.0, 0.0), (48.1, 11.5)])
def test_what_lancedb_reads_holds_every_row_that_is_left(tmp_path: Path, centre: tuple[float, float]) -> None:
    near = Near(*centre, 30_000.0)
    random = np.random.default_rng(7)
    spots = [
        GEOD.fwd(near.lon, near.lat, random.uniform(0, 360), random.uniform(0, 90_000)) for _ in range(60)
    ]
    positions = [Position(lat=float(lat), lon=float(lon)) for lon, lat, _ in spots]
    positions += [Position(lat=centre[0], lon=lon) for lon in (180.0, -180.0)]
    rows = rows_at([*positions, utm_only(at(48.1, 11.5)), Position()])
    left, read = near.mask(rows), np.array(held_by_sql(tmp_path, rows, near.predicate()))
    assert 5 < left.sum() < len(rows) - 5
    assert not (left & ~read).any()
    assert read.sum() < len(rows)


@pytest.mark.parametrize(
    "values",
    [
        *((91.0, 0.0, 1.0), (0.0, 181.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 0.0, 3e7)),
        *((float("nan"), 0.0, 1.0), (0.0, 0.0, float("nan")), (0.0, float("inf"), 1.0)),
    ],
)
def test_values_out_of_range_are_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(BadFilter, match="give"):
        Near(*values)


def test_filters_travel_between_processes_and_compare_by_value() -> None:
    near = Near(48.1, 11.5, 300.0)
    assert pickle.loads(pickle.dumps(near)) == near
    assert len({near, Near(48.1, 11.5, 300.0), Near(48.1, 11.5, 301.0)}) == 2
