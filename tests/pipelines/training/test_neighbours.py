"""Who is near whom: distances inclusive and exclusive, whom it leaves out, and data that is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines.training.errors import MiningRejected
from pipelines.training.neighbours import Places, find_neighbours


def places(points: object, *, zone: str | None = "33U") -> Places:
    utm_m = np.asarray(points, np.float64).reshape(-1, 2)
    names = [f"photo {i}.jpg" for i in range(len(utm_m))]
    return Places(utm_m, [zone] * len(utm_m), names)


def distances(queries: Places, database: Places) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.linalg.norm(queries.utm_m[:, None] - database.utm_m[None], axis=2)
    return found


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread_m=st.sampled_from([5.0, 40.0, 300.0, 5e6]))
def test_neighbours_are_those_of_every_distance_written_out(seed: int, spread_m: float) -> None:
    rng = np.random.default_rng(seed)
    # On a grid of 5 m, so that exactly 10 m and exactly 25 m occur.
    queries, database = (
        places(5 * np.round(rng.uniform(-spread_m, spread_m, (size, 2)) / 5)) for size in (7, 40)
    )
    database.utm_m[:9] = queries.utm_m[rng.integers(0, 7, 9)] + 5 * rng.integers(-6, 7, (9, 2))
    database.utm_m[-3:] += 1e4
    distance_m = distances(queries, database)
    usable = [q for q in range(7) if (distance_m[q] <= 10).any()]
    if not usable:
        with pytest.raises(MiningRejected, match="within 10 m"):
            find_neighbours(queries, database)
        return
    found = find_neighbours(queries, database)
    assert (found.queries, found.database) == (7, 40), seed
    assert found.usable.tolist() == usable, seed
    assert (found.without_positive, found.without_negative) == (7 - len(usable), 0), seed
    for q in range(7):
        assert found.positives(q).tolist() == np.flatnonzero(distance_m[q] <= 10).tolist(), (seed, q)
        assert found.excluded(q).tolist() == np.flatnonzero(distance_m[q] <= 25).tolist(), (seed, q)


def test_distances_of_centimetre_coordinates_are_inclusive() -> None:
    queries = places([[500000.1, 4649776.2]])
    database = places(
        [[500010.1, 4649776.2], [500010.11, 4649776.2], [500000.1, 4649801.2], [500000.1, 4649801.22]]
    )
    found = find_neighbours(queries, database, negatives=1)
    assert found.positives(0).tolist() == [0]
    assert found.excluded(0).tolist() == [0, 1, 2]


def test_queries_without_positive_or_negatives_are_left_out_and_counted() -> None:
    queries = places([[0, 0], [500, 0], [1000, 0], [2000, 0]])
    database = places([[1, 0], [20, 0], [1001, 0], [501, 0]])
    found = find_neighbours(queries, database, negatives=3)
    assert found.usable.tolist() == [1, 2]
    assert (found.without_positive, found.without_negative) == (1, 1)
    # Each query keeps its own list after others were left out.
    assert [found.excluded(q).tolist() for q in range(4)] == [[0, 1], [3], [2], []]


def refused(queries: Places, database: Places, **options: int) -> str:
    with pytest.raises(MiningRejected) as caught:
        find_neighbours(queries, database, **options)
    assert ": " in str(caught.value), "the message names no next step"
    return caught.value.reason


def test_missing_coordinates_are_refused_by_file_name() -> None:
    database = places([[0, 0], [100, np.nan], [np.inf, 0]])
    assert refused(places([[0, 0]]), database) == "missing_coordinates"
    with pytest.raises(MiningRejected, match=r"2 of 3 database images .* photo 1\.jpg"):
        find_neighbours(places([[0, 0]]), database)
    assert refused(places([[np.nan, np.nan]]), places([[0, 0]])) == "missing_coordinates"


@pytest.mark.parametrize(
    ("zones", "reason"),
    [
        (("33U", "32U"), "mixed_zones"),
        (("33", "32"), "mixed_zones"),
        (("33N", "33M"), "mixed_zones"),  # northings start anew at the equator
        (("33U", "33T"), None),
        (("33U", None), None),
        (("33U", "33"), None),
        (("33u", "33T"), None),
        ((None, None), None),
    ],
)
def test_mixed_zones_are_refused_within_and_across_sides(
    zones: tuple[str | None, str | None], reason: str | None
) -> None:
    points = [[0, 0], [100, 0], [200, 0]]
    queries, database = places(points, zone=zones[0]), places(points, zone=zones[1])
    mixed = Places(np.array(points, float), [zones[0], zones[1], zones[0]], ["a", "b", "c"])
    for pair in ((queries, database), (mixed, queries), (queries, mixed)):
        if reason:
            assert refused(*pair) == reason
        else:
            assert len(find_neighbours(*pair).usable) == 3


def test_nothing_to_train_on_is_refused() -> None:
    assert refused(places([[0, 0]]), places([[11, 0], [100, 0], [200, 0]])) == "no_positives"
    assert refused(places([[0, 0]]), places([[1, 0], [100, 0]])) == "no_negatives"
    assert refused(places([]), places([[0, 0]])) == "no_images"
    assert refused(places([[0, 0]]), places([])) == "no_images"


def test_arguments_that_make_no_sense_are_refused() -> None:
    some = places([[0, 0], [100, 0], [200, 0]])
    for options in ({"positive_m": 0.0}, {"positive_m": 30.0}, {"negative_m": np.inf}, {"negatives": 0}):
        with pytest.raises(ValueError):
            find_neighbours(some, some, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="zones"):
        Places(np.zeros((2, 2)), ["33U"], ["a", "b"])
