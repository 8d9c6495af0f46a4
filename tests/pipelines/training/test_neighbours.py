"""Positives and exclusions by distance, queries left out, and data that is refused."""

from __future__ import annotations

import numpy as np
import pytest
import utm
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines.training.data import PhotoSet
from pipelines.training.errors import MiningRejected
from pipelines.training.neighbours import find_neighbours
from tests.support.training_city import photo_set


def distances(queries: PhotoSet, database: PhotoSet) -> NDArray[np.float64]:
    pairs = queries.positions.utm_m[:, None] - database.positions.utm_m[None]
    lengths: NDArray[np.float64] = np.linalg.norm(pairs, axis=2)
    return lengths


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread_m=st.sampled_from([5.0, 40.0, 300.0, 5e6]))
def test_neighbours_equal_a_full_distance_matrix(seed: int, spread_m: float) -> None:
    rng = np.random.default_rng(seed)
    # On a grid of 5 m, so that exactly 10 m and exactly 25 m occur.
    queries, database = (
        photo_set(5 * np.round(rng.uniform(-spread_m, spread_m, (size, 2)) / 5)) for size in (7, 40)
    )
    database.positions.utm_m[:9] = queries.positions.utm_m[rng.integers(0, 7, 9)] + 5 * rng.integers(
        -6, 7, (9, 2)
    )
    database.positions.utm_m[-3:] += 1e4
    distance_m = distances(queries, database)
    usable = [q for q in range(7) if (distance_m[q] <= 10).any()]
    if not usable:
        with pytest.raises(MiningRejected, match="within 10 m"):
            find_neighbours(queries, database)
        return
    neighbours = find_neighbours(queries, database)
    assert (neighbours.queries, neighbours.database) == (7, 40), seed
    assert neighbours.usable.tolist() == usable, seed
    assert (neighbours.without_positive, neighbours.without_negative) == (7 - len(usable), 0), seed
    for q in range(7):
        assert neighbours.positives(q).tolist() == np.flatnonzero(distance_m[q] <= 10).tolist(), (seed, q)
        assert neighbours.excluded(q).tolist() == np.flatnonzero(distance_m[q] <= 25).tolist(), (seed, q)


def test_distances_of_centimetre_coordinates_are_inclusive() -> None:
    queries = photo_set([[500000.1, 4649776.2]])
    database = photo_set(
        [[500010.1, 4649776.2], [500010.11, 4649776.2], [500000.1, 4649801.2], [500000.1, 4649801.22]]
    )
    neighbours = find_neighbours(queries, database, negatives=1)
    assert neighbours.positives(0).tolist() == [0]
    assert neighbours.excluded(0).tolist() == [0, 1, 2]


def test_queries_without_positive_or_negatives_are_left_out_and_counted() -> None:
    queries = photo_set([[0, 0], [500, 0], [1000, 0], [2000, 0]])
    database = photo_set([[1, 0], [20, 0], [1001, 0], [501, 0]])
    neighbours = find_neighbours(queries, database, negatives=3)
    assert neighbours.usable.tolist() == [1, 2]
    assert (neighbours.without_positive, neighbours.without_negative) == (1, 1)
    # Each query keeps its own list after others were left out.
    assert [neighbours.excluded(q).tolist() for q in range(4)] == [[0, 1], [3], [2], []]


def refused(queries: PhotoSet, database: PhotoSet, **options: int) -> str:
    with pytest.raises(MiningRejected) as caught:
        find_neighbours(queries, database, **options)
    assert ": " in str(caught.value), "the message names no next step"
    return caught.value.reason


def test_missing_coordinates_are_refused_by_file_name() -> None:
    database = photo_set([[0, 0], [100, np.nan], [np.inf, 0]])
    assert refused(photo_set([[0, 0]]), database) == "missing_coordinates"
    with pytest.raises(MiningRejected, match=r"2 of 3 database images .* photo 1\.jpg"):
        find_neighbours(photo_set([[0, 0]]), database)
    assert refused(photo_set([[np.nan, np.nan]]), photo_set([[0, 0]])) == "missing_coordinates"


def straddling(lat: float, lon: float) -> tuple[PhotoSet, PhotoSet]:
    """Return two queries and photos near and far, on either side of a zone's border or the equator."""
    query, positive, far = 0.3e-4, -0.2e-4, -4e-4  # 1e-4 degrees are 11 m or less
    sides = []
    for shifts in ((query, -query), (positive, -positive, far, -far)):
        places = [utm.from_latlon(lat + shift, lon + shift) for shift in shifts]
        points = [[float(east), float(north)] for east, north, _, _ in places]
        sides.append(photo_set(points, [f"{number}{band}" for _, _, number, band in places]))
    return sides[0], sides[1]


@pytest.mark.parametrize(("lat", "lon"), [(48.0, 12.0), (-33.9, 18.0), (0.0, 36.8)])
def test_pairs_across_the_border_of_a_zone_and_the_equator_are_positives(lat: float, lon: float) -> None:
    queries, database = straddling(lat, lon)
    assert len(set(zip(queries.positions.zones, queries.positions.hemispheres, strict=True))) == 2
    neighbours = find_neighbours(queries, database)
    assert neighbours.usable.tolist() == [0, 1]
    for query, same, across in ((0, 1, 0), (1, 0, 1)):
        # One positive is on the query's own side, one across; both of the far ones may be negatives.
        assert neighbours.positives(query).tolist() == sorted([same, across])
        assert neighbours.excluded(query).tolist() == sorted([same, across])


@pytest.mark.parametrize(
    "zones", [("33U", "33T"), ("33U", None), ("33U", "33"), ("33u", "33T"), (None, None)]
)
def test_equivalent_and_unknown_zone_names_match(zones: tuple[str | None, str | None]) -> None:
    points = [[5e5, 5e6], [5e5 + 100, 5e6], [5e5 + 200, 5e6]]
    mixed = photo_set(points, [zones[0], zones[1], zones[0]])
    assert find_neighbours(mixed, photo_set(points, [zones[1]] * 3)).usable.tolist() == [0, 1, 2]


def test_empty_photo_sets_are_refused() -> None:
    assert refused(photo_set([[0, 0]]), photo_set([[11, 0], [100, 0], [200, 0]])) == "no_positives"
    assert refused(photo_set([[0, 0]]), photo_set([[1, 0], [100, 0]])) == "no_negatives"
    assert refused(photo_set([]), photo_set([[0, 0]])) == "no_images"
    assert refused(photo_set([[0, 0]]), photo_set([])) == "no_images"


def test_invalid_arguments_are_refused() -> None:
    some = photo_set([[0, 0], [100, 0], [200, 0]])
    for options in ({"positive_m": 0.0}, {"positive_m": 30.0}, {"negative_m": np.inf}, {"negatives": 0}):
        with pytest.raises(ValueError):
            find_neighbours(some, some, **options)  # type: ignore[arg-type]
