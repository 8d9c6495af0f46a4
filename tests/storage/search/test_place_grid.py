"""Rows by cells against a look at every row: across the 180th meridian, at the poles, without degrees."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyproj
import pytest

from storage.search import memory_rows
from storage.search.filters.all_of import AllOf
from storage.search.filters.bounds import around
from storage.search.filters.heading import Heading
from storage.search.filters.near import Near
from storage.search.memory_rows import MemoryRows
from storage.search.place_grid import PlaceGrid
from storage.search.rows_left import rows_left

CENTRES = [(48.1, 11.5), (0.0, 180.0), (0.001, -179.999), (89.9, 10.0), (-89.95, -60.0), (64.0, 179.99)]


def places(seed: int, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    centres = np.array(CENTRES)[random.integers(len(CENTRES), size=count)]
    spread = 10.0 ** random.uniform(-5, 0.5, (count, 2)) * random.choice([-1, 1], (count, 2))
    lat = np.clip(centres[:, 0] + spread[:, 0], -90, 90)
    lon = (centres[:, 1] + spread[:, 1] + 180) % 360 - 180
    lat[random.random(count) < 0.05] = np.nan
    return lat, lon


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("radius_m", [1, 50, 900, 20_000, 400_000])
def test_no_row_inside_is_missed(seed: int, radius_m: float) -> None:
    lat, lon = places(seed)
    grid = PlaceGrid(lat, lon)
    for centre in CENTRES:
        bounds = around(*centre, radius_m)
        found = grid.inside(bounds)
        if found is None:
            continue
        assert set(np.flatnonzero(bounds.hold(lat, lon))) <= set(found.tolist())
        assert set(np.flatnonzero(np.isnan(lat))) <= set(found.tolist())
        assert len(set(found.tolist())) == len(found)


@pytest.mark.parametrize("seed", range(3))
def test_filters_by_place_leave_the_same_rows(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_rows, "_GRID_ROWS", 10)
    lat, lon = places(seed)
    missing = np.isnan(lat)
    rows = pa.table(
        {
            "image_id": [f"{i}" for i in range(len(lat))],
            "lat": pa.array(lat, mask=missing),
            "lon": pa.array(lon, mask=missing),
            "utm_e": pa.array(np.full(len(lat), 500_000.0), mask=~missing),
            "utm_n": pa.array(np.full(len(lat), 5_327_000.0), mask=~missing),
            "utm_zone": pa.array(["32U" if each else None for each in missing]),
            "heading_deg": pa.array(np.arange(len(lat)) * 7.0 % 360),
        }
    )
    memory = MemoryRows(rows)
    for centre in [*CENTRES, (48.1, 9.0)]:
        for radius_m in (50.0, 1000.0, 30_000.0):
            near = Near(*centre, radius_m)
            for within in (near, AllOf((Heading(90.0, 30.0), near))):
                assert np.array_equal(memory.left(within), rows_left(within, rows)), within


@pytest.mark.parametrize("radius_m", [3, 60, 700, 2_500, 6_000, 40_000])
@pytest.mark.parametrize("centre", [(48.1, 11.5), (0.0, -70.0), (-74.0, 30.0)])
def test_only_rows_near_the_edge_of_a_disc_are_in_doubt(centre: tuple[float, float], radius_m: float) -> None:
    random = np.random.default_rng(3)
    lat = centre[0] + random.uniform(-0.03, 0.03, 50_000)
    lon = centre[1] + random.uniform(-0.03, 0.03, 50_000)
    lat[:100] = np.nan
    near = Near(*centre, radius_m)
    found = PlaceGrid(lat, lon).within(near)
    assert found is not None
    certain, doubtful = found
    away_m = pyproj.Geod(ellps="WGS84").inv(*(np.full(len(lat), x) for x in centre[::-1]), lon, lat)[2]
    inside = away_m <= radius_m
    assert not (certain & ~inside).any()
    assert set(np.flatnonzero(inside & ~certain)) <= set(doubtful.tolist())
    assert set(range(100)) <= set(doubtful.tolist())
    assert np.abs(away_m[doubtful][100:] - radius_m).max(initial=0) < max(2 * radius_m**0.5 * 25**0.5, 40)


def test_a_disc_across_the_180th_meridian_or_at_a_pole_is_left_to_a_look_at_every_row() -> None:
    lat, lon = places(0)
    grid = PlaceGrid(lat, lon)
    for centre in [(0.0, 180.0), (0.0, -179.999), (89.9, 10.0)]:
        assert grid.within(Near(*centre, 900.0)) is None
    assert grid.within(Near(48.1, 11.5, 60_000.0)) is None
