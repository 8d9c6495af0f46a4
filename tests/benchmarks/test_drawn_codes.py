"""Made cities of codes: distances as in the photos that they are made from, and the same city every time."""

from __future__ import annotations

import numpy as np

from benchmarks.drawn_codes import CodeCity, DescribedPhotos, Statistics, hamming_quantiles

BITS, FLOATS = 64, 32
RNG = np.random.default_rng(0)
SPREAD = 1 / np.sqrt(1 + np.arange(40))
MAPS = RNG.standard_normal((40, BITS + FLOATS))


def drawn_city(streets: int = 60, places: int = 6) -> DescribedPhotos:
    """Two photos of each place: streets, places and photos add steps of known size."""
    street = np.repeat(RNG.standard_normal((streets, 40)), places, axis=0)
    place = street + 0.7 * RNG.standard_normal((streets * places, 40))
    photos = [place + 0.4 * RNG.standard_normal(place.shape) for _ in range(2)]
    joint = np.concatenate(photos) * SPREAD @ MAPS
    values, floats = joint[:, :BITS] + 0.3, joint[:, BITS:] + 2
    along = np.column_stack(
        [np.repeat(np.arange(streets) * 80.0, places), np.tile(np.arange(places) * 10.0, streets)]
    )
    return DescribedPhotos(
        values.astype(np.float32),
        (floats / np.linalg.norm(floats, axis=1, keepdims=True)).astype(np.float32),
        np.concatenate([along, along]),
        np.zeros(len(joint)),
        np.arange(len(joint)) < len(place),
    )


def test_distances_are_those_of_the_photos() -> None:
    photos = drawn_city()
    statistics = Statistics([photos])
    assert min(statistics.explained.values()) > 0.95
    city = CodeCity(statistics, 16_000)
    made, floats = next(city.blocks())
    asked, queried = city.queries(16_000)
    np.testing.assert_allclose(np.linalg.norm(floats, axis=1), 1, atol=1e-5)
    drawn = np.packbits(photos.values >= 0, axis=1)
    one, other = photos.pairs()
    for ours, wanted in (
        (hamming_quantiles(asked, made), hamming_quantiles(drawn[one], drawn[other])),
        (hamming_quantiles(made[:-900], made[900:]), hamming_quantiles(drawn[:-90], drawn[90:])),
    ):
        assert np.abs(np.subtract(ours, wanted)).max() <= 3, (ours, wanted)
    ours_similar = np.median((floats * queried).sum(axis=1))
    assert abs(ours_similar - np.median((photos.floats[one] * photos.floats[other]).sum(axis=1))) < 0.03


def test_a_city_is_the_same_every_time_and_queries_are_not_rows() -> None:
    statistics = Statistics([drawn_city()])
    first, again = (next(CodeCity(statistics, 500).blocks())[0] for _ in range(2))
    assert np.array_equal(first, again)
    asked, _ = CodeCity(statistics, 500).queries(500)
    assert (np.bitwise_count(first ^ asked).sum(axis=1) > 0).mean() > 0.9
