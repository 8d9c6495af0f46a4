"""Intervals by a bootstrap of places: coverage in repeated samples, and what cannot be drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.evaluation.intervals import clustered_bootstrap, mean_intervals, share_interval


def hits_of_models(
    rng: np.random.Generator, places: int, views: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
    """Draw the hits of two models on the same photos: some places are harder than others for both."""
    ease = rng.normal(1.0, 0.8, (places, 1)) + rng.normal(0.0, 0.5, (places, views))
    first = ease + rng.normal(0.0, 0.6, (places, views)) > 0.0
    second = ease + 0.15 + rng.normal(0.0, 0.6, (places, views)) > 0.0
    return first.ravel(), second.ravel(), np.repeat(np.arange(places), views)


def coverage(repeats: int, places: int) -> float:
    """Return how often the interval of a paired difference holds the truth, in percent."""
    rng = np.random.default_rng(5)
    first, second, _ = hits_of_models(rng, 400_000, 4)
    truth = second.mean() - first.mean()
    held = 0
    for repeat in range(repeats):
        first, second, place = hits_of_models(rng, places, 4)
        low, high = clustered_bootstrap(second.astype(float) - first, place, np.mean, seed=repeat)
        held += low <= truth <= high
    return 100.0 * held / repeats


@pytest.mark.slow
@pytest.mark.parametrize("places", [50, 120])
def test_the_interval_of_a_paired_difference_holds_the_truth_as_often_as_it_says(places: int) -> None:
    assert 93.0 <= coverage(1000, places) <= 97.0


def test_the_interval_of_a_paired_difference_holds_the_truth_in_most_samples() -> None:
    assert coverage(120, 50) >= 87.5


def test_photos_of_one_place_do_not_count_as_independent() -> None:
    rng = np.random.default_rng(5)
    narrower = 0
    for repeat in range(20):
        hits, _, place = hits_of_models(rng, 60, 4)
        values = hits.astype(float)
        single = clustered_bootstrap(values, np.arange(len(values)), np.mean, seed=repeat)
        whole = clustered_bootstrap(values, place, np.mean, seed=repeat)
        narrower += single[1] - single[0] < whole[1] - whole[0]
    assert narrower >= 19


def test_any_statistic_is_drawn_and_the_mean_agrees_with_its_faster_way() -> None:
    rng = np.random.default_rng(1)
    metres = rng.exponential(10.0, 300)
    place = np.arange(300) // 3
    fast = clustered_bootstrap(metres, place, np.mean)
    slow = clustered_bootstrap(metres, place, lambda drawn: float(drawn.mean()))
    assert fast == pytest.approx(slow, abs=0.3)
    low, high = clustered_bootstrap(metres, place, lambda drawn: float(np.median(drawn)))
    assert low < np.median(metres) < high
    assert high - low < 6.0
    assert clustered_bootstrap(metres, place, np.mean) == fast, "the same seed gives the same interval"
    assert clustered_bootstrap(metres, place, np.mean, seed=1) != fast


def test_queries_without_a_value_are_left_out_of_their_column() -> None:
    values = np.array([[1.0, np.nan], [0.0, 3.0], [1.0, 3.0], [0.0, np.nan]])
    both = mean_intervals(values, np.arange(4))
    assert both[1] == pytest.approx([3.0, 3.0])
    assert both[0, 0] < 0.5 < both[0, 1]


def test_a_share_of_all_or_none_has_an_interval_too() -> None:
    place = np.arange(80) // 2
    low, high = share_interval(np.ones(80, bool), place)
    assert (low, high) == pytest.approx((0.025 ** (1 / 40), 1.0))
    assert share_interval(np.zeros(80, bool), place) == pytest.approx((0.0, 1.0 - 0.025 ** (1 / 40)))
    hits = np.arange(80) < 60
    low, high = share_interval(hits, place)
    assert 0.55 < low < 0.75 < high < 0.95


def test_too_few_places_promise_nothing() -> None:
    assert clustered_bootstrap([1.0, 0.0], ["a", "a"], np.mean) == (-math.inf, math.inf)
    assert clustered_bootstrap([1.0, 0.0], ["a", "a"], lambda v: 1.0) == (-math.inf, math.inf)
    assert all(map(math.isnan, clustered_bootstrap([], [], np.mean)))
    with pytest.raises(ValueError, match="2 values for 1 clusters"):
        clustered_bootstrap([1.0, 2.0], [1], np.mean)
    two = clustered_bootstrap([1.0, 0.0, 1.0], ["a", "b", "b"], np.mean)
    assert two[0] <= 0.5 <= two[1]
