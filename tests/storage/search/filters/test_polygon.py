"""Rows inside of polygons, against exact arithmetic on single points; hostile GeoJSON."""

from __future__ import annotations

import itertools
import json
import os
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.position import Position
from storage.search.filters import BadFilter, Inside, inside_geojson, read_geojson
from tests.storage.search.filters.rows import held_by_sql, rows_at
from tests.support.positions import at, utm_only

Corner = tuple[float, float]
SQUARE = [[10.0, 50.0], [11.0, 50.0], [11.0, 51.0], [10.0, 51.0], [10.0, 50.0]]


def is_inside(ring: list[Corner], lon: float, lat: float) -> bool:
    """Whether a point is in a ring or on it, in exact arithmetic, whatever turn its longitude has."""
    return any(_is_inside(ring, Fraction(lon) + turn, Fraction(lat)) for turn in (-360, 0, 360))


def _is_inside(ring: list[Corner], x: Fraction, y: Fraction) -> bool:
    odd = False
    for a, b in itertools.pairwise(ring):
        (x1, y1), (x2, y2) = (tuple(map(Fraction, corner)) for corner in (a, b))
        area = (x2 - x1) * (y - y1) - (x - x1) * (y2 - y1)
        if area == 0 and min(x1, x2) <= x <= max(x1, x2) and min(y1, y2) <= y <= max(y1, y2):
            return True
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
            odd = not odd
    return odd


def masked(polygon: Inside, points: list[Corner]) -> list[bool]:
    rows = rows_at([Position(lat=lat, lon=lon) for lon, lat in points])
    return [bool(inside) for inside in polygon.mask(rows)]


# A grid, so that points lie on edges and corners too, and products are exact in double precision.
GRID = st.integers(-8, 8).map(lambda n: n / 4)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(GRID, GRID), min_size=3, max_size=9, unique=True),
    st.lists(st.tuples(GRID, GRID), min_size=1, max_size=12),
    st.sampled_from([0.0, 10.0, 180.0, -180.0, 360.0]),
    st.sampled_from([0.0, 60.0, -86.0, 88.0]),
)
def test_exactly_the_points_inside_are_left_whatever_the_outline(
    ring: list[Corner], points: list[Corner], lon: float, lat: float
) -> None:
    moved = [(x + lon, y + lat) for x, y in [*ring, ring[0]]]
    spots = [((x + lon + 180) % 360 - 180, y + lat) for x, y in points]
    polygon = Inside(((tuple(moved),),))
    assert masked(polygon, spots) == [is_inside(moved, *spot) for spot in spots]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=20))
def test_points_anywhere_in_a_star_are_told_from_those_outside(points: list[Corner]) -> None:
    angles = np.arange(40) / 40 * 2 * np.pi
    reach = np.where(np.arange(40) % 2, 1.0, 2.9)
    ring = [(float(x), float(y)) for x, y in zip(reach * np.cos(angles), reach * np.sin(angles), strict=True)]
    ring.append(ring[0])
    assert masked(Inside(((tuple(ring),),)), points) == [is_inside(ring, *point) for point in points]


def test_holes_are_left_out_and_several_polygons_joined() -> None:
    hole = [[10.25, 50.25], [10.75, 50.25], [10.75, 50.75], [10.25, 50.75], [10.25, 50.25]]
    other = [[lon + 2, lat] for lon, lat in SQUARE]
    text = json.dumps({"type": "MultiPolygon", "coordinates": [[SQUARE, hole], [other]]})
    points = [(10.1, 50.5), (10.5, 50.5), (10.25, 50.5), (12.5, 50.5), (11.5, 50.5), (10.0, 50.0)]
    assert masked(inside_geojson(text), points) == [True, False, True, True, False, True]


@pytest.mark.parametrize(
    "ring",
    [
        [[179, -18], [181, -18], [181, -16], [179, -16], [179, -18]],
        [[179, -18], [-179, -18], [-179, -16], [179, -16], [179, -18]],
        [[-181, -18], [-179, -18], [-179, -16], [-181, -16], [-181, -18]],
        [[-179, -16], [179, -16], [179, -18], [-179, -18], [-179, -16]],
    ],
)
def test_a_polygon_may_run_across_the_180th_meridian(ring: list[list[float]]) -> None:
    hole = [[179.9, -17.1], [-179.9, -17.1], [-179.9, -16.9], [179.9, -16.9], [179.9, -17.1]]
    polygon = inside_geojson(json.dumps({"type": "Polygon", "coordinates": [ring, hole]}))
    points = [(179.5, -17.0), (-179.5, -17.0), (180.0, -17.5), (-180.0, -17.5), (180.0, -17.0), (0.0, -17.0)]
    assert masked(polygon, points) == [True, True, True, True, False, False]


def test_the_whole_world_is_a_polygon_and_half_of_it_too() -> None:
    world = [[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]
    polygon = inside_geojson(json.dumps({"type": "Polygon", "coordinates": [world]}))
    points = [(0.0, 0.0), (180.0, 1.0), (-180.0, 90.0), (100.0, -90.0)]
    assert masked(polygon, points) == [True] * 4
    half = [[-90, -90], [90, -90], [90, 90], [-90, 90], [-90, -90]]
    assert masked(
        inside_geojson(json.dumps({"type": "Polygon", "coordinates": [half]})), [*points, (91.0, 0.0)]
    ) == [True, False, False, False, False]


def test_rows_in_utm_are_inside_too_and_rows_without_a_position_are_not() -> None:
    rows = rows_at([utm_only(at(50.5, 10.5)), utm_only(at(50.5, 12.5)), Position()])
    polygon = inside_geojson(json.dumps({"type": "Polygon", "coordinates": [SQUARE]}))
    assert polygon.mask(rows).tolist() == [True, False, False]


@pytest.mark.parametrize("parts", [1, 3, 30])
def test_what_lancedb_reads_holds_every_row_that_is_left(tmp_path: Path, parts: int) -> None:
    rings = [[[(lon + 3 * n + 170), lat + n / 10] for lon, lat in SQUARE] for n in range(parts)]
    polygon = inside_geojson(
        json.dumps({"type": "MultiPolygon", "coordinates": [[[[x - 10, y] for x, y in r]] for r in rings]})
    )
    random = np.random.default_rng(3)
    points = [
        Position(lat=float(lat), lon=float((lon + 180) % 360 - 180))
        for lat, lon in zip(random.uniform(49, 54, 200), random.uniform(168, 268, 200), strict=True)
    ]
    rows = rows_at([*points, utm_only(at(50.5, 10.5)), Position(lat=0.0, lon=0.0)])
    left, read = polygon.mask(rows), np.array(held_by_sql(tmp_path, rows, polygon.predicate()))
    assert left.any()
    assert not (left & ~read).any()
    assert not read[-1]


def test_features_and_collections_are_read_and_files_too(tmp_path: Path) -> None:
    polygon = {"type": "Polygon", "coordinates": [[[*corner, 500.0] for corner in SQUARE]]}
    nothing = {"type": "Feature", "properties": {}, "geometry": None}
    feature = {"type": "Feature", "properties": {"name": "\u00e4"}, "geometry": polygon}
    collection = {"type": "FeatureCollection", "features": [nothing, feature]}
    nested = {"type": "GeometryCollection", "geometries": [polygon]}
    (tmp_path / "area.geojson").write_text("\ufeff" + json.dumps(collection), encoding="utf-8")
    expected = inside_geojson(json.dumps(polygon))
    for text in (json.dumps(feature), json.dumps(nested), read_geojson(tmp_path / "area.geojson")):
        assert inside_geojson(text) == expected
    assert pickle.loads(pickle.dumps(expected)) == expected
    assert hash(expected) == hash(inside_geojson(json.dumps(polygon)))


def polygon_of(ring: Any) -> str:
    return json.dumps({"type": "Polygon", "coordinates": [ring]})


ZIGZAG = [[n / 1000, 50.0 + n % 2] for n in range(1000)]
HOSTILE = {
    "no JSON": "{",
    "brackets": "[" * 100_000,
    "nested": '{"type":"Feature","geometry":' * 50 + "null" + "}" * 50,
    "nested collections": '{"type":"GeometryCollection","geometries":[' * 20 + "]}" * 20,
    "a list": "[1]",
    "no type": "{}",
    "a line": '{"type":"LineString","coordinates":[[0,0],[1,1]]}',
    "a type that is a list": '{"type":["Polygon"],"coordinates":[]}',
    "no coordinates": '{"type":"Polygon"}',
    "no outline": '{"type":"Polygon","coordinates":[]}',
    "an empty outline": polygon_of([]),
    "two corners": polygon_of([[0, 0], [1, 1], [0, 0]]),
    "text": polygon_of([["0", 0], [1, 1], [0, 1]]),
    "booleans": polygon_of([[True, 0], [1, 1], [0, 1]]),
    "NaN": '{"type":"Polygon","coordinates":[[[NaN,0],[1,1],[0,1]]]}',
    "1e400": '{"type":"Polygon","coordinates":[[[1e400,0],[1,1],[0,1]]]}',
    "thousands of digits": '{"type":"Polygon","coordinates":[[[' + "9" * 6000 + ",0],[1,1],[0,1]]]}",
    "numbers of one": polygon_of([[0], [1], [2]]),
    "metres": polygon_of([[690_000, 5_330_000], [690_100, 5_330_000], [690_100, 5_330_100]]),
    "beyond the pole": polygon_of([[0, 89], [1, 91], [2, 89]]),
    "around the pole": polygon_of([[0, 80], [120, 80], [-120, 80], [0, 80]]),
    "another system": json.dumps(
        {"type": "Polygon", "coordinates": [SQUARE], "crs": {"properties": {"name": "EPSG:25832"}}}
    ),
    "too many corners": polygon_of([[n * 1e-3, 50 + n * 1e-4] for n in range(25_000)]),
    "an outline that keeps a searcher busy": polygon_of(ZIGZAG),
    "many tall outlines": json.dumps({"type": "MultiPolygon", "coordinates": [[SQUARE]] * 200}),
    "no polygon at all": '{"type":"FeatureCollection","features":[]}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_geojson_that_is_no_polygon_is_refused_with_what_to_give(name: str) -> None:
    with pytest.raises(BadFilter) as refused:
        inside_geojson(HOSTILE[name])
    assert refused.value.exit_code == 2
    assert len(str(refused.value)) < 300


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large").write_bytes(b" " * ((4 << 20) + 1))
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing", "bytes", "large", "folder", "pipe"):
        with pytest.raises(BadFilter, match=name):
            read_geojson(tmp_path / name)


def test_many_small_islands_are_no_burden() -> None:
    islands = [[[[x + 2 * n, y + n / 1000] for x, y in SQUARE]] for n in range(90)]
    polygon = inside_geojson(json.dumps({"type": "MultiPolygon", "coordinates": islands}))
    assert masked(polygon, [(-171.5, 50.55), (-170.5, 50.55), (10.5, 50.001)]) == [True, False, True]
