"""Promised shares of wrong answers hold on populations whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from serving.places.promises import CONFIDENCE, LEVELS, SHARES, photos_needed, promises, upper_bound

DRAWS = 1000


def risk_beyond(score: float, slope: float) -> float:
    """The share of wrong answers with a score above `score`, scores uniform in 0..1, wrong by a power."""
    return (1 - score) ** slope / (slope + 1)


def draw(random: np.random.Generator, photos: int, slope: float) -> tuple[np.ndarray, np.ndarray]:
    scores = random.random(photos)
    return scores, random.random(photos) < (1 - scores) ** slope


@pytest.mark.parametrize("photos", [40, 150, 600])
@pytest.mark.parametrize("slope", [1.0, 3.0, 8.0])
def test_levels_are_exceeded_no_more_often_than_stated(photos: int, slope: float) -> None:
    random = np.random.default_rng(round(1000 * slope) + photos)
    exceeded = 0
    for _ in range(DRAWS):
        scores, wrong = draw(random, photos, slope)
        made = promises(scores, wrong)
        exceeded += any(risk_beyond(p.above or 0.0, slope) > p.level for p in made)
    share = 1 - CONFIDENCE
    assert exceeded / DRAWS <= share + 3 * math.sqrt(share * (1 - share) / DRAWS)


def test_a_population_at_the_very_level_is_promised_no_more_often_than_stated() -> None:
    """The hardest case: whatever the score, each answer is wrong with a little more than the level."""
    random = np.random.default_rng(5)
    exceeded = 0
    for _ in range(DRAWS):
        scores, wrong = random.random(120), random.random(120) < 0.1001
        exceeded += any(p.level <= 0.1 for p in promises(scores, wrong))
    share = 1 - CONFIDENCE
    assert 0 < exceeded / DRAWS <= share + 3 * math.sqrt(share * (1 - share) / DRAWS)


def test_many_right_answers_are_promised_and_called_known() -> None:
    scores = np.linspace(0, 1, 400)
    made = promises(scores, scores < 0.3)
    assert [promise.level for promise in made] == [level for level in LEVELS if level >= 0.02]
    assert all(promise.bound <= promise.level for promise in made)
    assert [p.known for p in made] == sorted(p.known for p in made)
    strict = next(p for p in made if p.level == 0.05)
    assert strict.above == pytest.approx(0.3, abs=0.05)
    assert strict.known >= 0.65 * 400


def test_few_photos_promise_nothing() -> None:
    assert promises(np.linspace(0, 1, 12), np.zeros(12, bool), levels=(0.05,)) == []
    assert promises(np.empty(0), np.empty(0, bool)) == []


def test_equal_scores_are_called_known_together_or_not_at_all() -> None:
    scores = np.array([1.0] * 150 + [0.5] * 50)
    wrong = np.array([False] * 150 + [True] * 50)
    made = promises(scores, wrong)
    assert {p.known for p in made} <= {150, 200}
    assert made
    assert next(p for p in made if p.level == 0.05).above == 0.5


def test_how_many_photos_are_needed_is_enough_but_not_far_too_many() -> None:
    scores = np.linspace(0, 1, 20)
    needed = photos_needed(scores, np.zeros(20, bool), 0.05)
    assert needed is not None
    enough = promises(np.linspace(0, 1, needed), np.zeros(needed, bool), levels=(0.05,))
    short = promises(np.linspace(0, 1, needed - 2), np.zeros(needed - 2, bool), levels=(0.05,))
    assert (len(enough), len(short)) == (1, 0)
    assert photos_needed(scores, np.ones(20, bool), 0.05) is None


@pytest.mark.parametrize(("wrong", "known"), [(0, 10), (1, 40), (7, 90), (40, 1000)])
def test_the_bound_is_the_share_at_which_so_few_wrong_answers_are_rare(wrong: int, known: int) -> None:
    bound = upper_bound(wrong, known, 0.05)
    tail = sum(math.comb(known, k) * bound**k * (1 - bound) ** (known - k) for k in range(wrong + 1))
    assert tail == pytest.approx(0.05, rel=1e-6)
    assert upper_bound(known, known, 0.05) == 1.0
    assert len(SHARES) == len(set(SHARES))
