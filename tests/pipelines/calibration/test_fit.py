"""Fitting a calibration: what is promised was not used to choose, and too few photos promise nothing."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.calibration.fit import MIN_PHOTOS, fit, require_promise, split_by_place
from pipelines.calibration.labelled import Labelled
from serving.places.errors import TooFewPhotos
from serving.places.monotone import fit_logistic, fit_steps, step_values
from serving.places.signs import SCALE, SIGNS, WEIGHTS


def population(photos: int, *, seed: int = 0, easy: float = 3.0) -> Labelled:
    """Answers whose signs tell right from wrong by chance; two photos of each place."""
    random = np.random.default_rng(seed)
    right = random.random(photos) < 0.7
    signs = SCALE * (random.normal(size=(photos, len(SIGNS))) + easy * right[:, None])
    errors = np.where(right, random.exponential(4.0, photos), random.uniform(50, 500, photos))
    return Labelled(tuple(map(str, range(photos))), signs, right, errors, np.arange(photos) // 2)


def test_places_are_never_split() -> None:
    labelled = population(200)
    fitting, testing = split_by_place(labelled, 0.25)
    assert len(fitting) == 50
    assert len(testing) == 150
    assert not set(labelled.places[fitting]) & set(labelled.places[testing])
    again = split_by_place(labelled, 0.25)[0]
    assert again.tolist() == fitting.tolist()
    assert split_by_place(labelled, 0.25, seed=1)[0].tolist() != fitting.tolist()


def test_promises_hold_on_other_photos_and_probabilities_are_about_right() -> None:
    fitted = fit(population(600))
    others = population(20_000, seed=1)
    scores = fitted.ranking.scores(others.signs)
    for promise in fitted.promises:
        known = scores > (-np.inf if promise.above is None else promise.above)
        assert (~others.right[known]).mean() <= promise.level
    strict = next(promise for promise in fitted.promises if promise.level == 0.05)
    assert (scores > (strict.above or 0)).mean() > 0.5
    probability = step_values(
        scores, np.array(fitted.probability.scores), np.array(fitted.probability.values)
    )
    assert abs(probability - others.right).mean() < 0.1
    assert (fitted.ranking.weights >= 0).all()


def test_too_few_photos_are_refused_with_the_number_that_is_needed() -> None:
    with pytest.raises(TooFewPhotos, match=str(MIN_PHOTOS)) as refused:
        fit(population(MIN_PHOTOS - 1))
    assert refused.value.exit_code == 2
    few = population(60)
    with pytest.raises(TooFewPhotos, match="about") as refused:
        require_promise(fit(few), len(few), 0.05)
    needed = int(str(refused.value).split("about ")[1].split()[0])
    assert 100 < needed < 600
    many = population(needed + 60, seed=4)
    require_promise(fit(many), len(many), 0.05)


def test_answers_that_are_wrong_whatever_the_signs_say_promise_nothing() -> None:
    labelled = population(400, easy=0.0)
    with pytest.raises(TooFewPhotos, match="too many"):
        require_promise(fit(labelled), len(labelled), 0.01)


def test_weights_stay_near_the_given_ones_without_data_and_follow_the_data_with_much() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(4000, 2))
    right = random.random(4000) < 1 / (1 + np.exp(-3 * values[:, 0]))
    weights, _ = fit_logistic(values, right, towards=np.array([1.0, 1.0]), strength=2.0)
    assert weights[0] == pytest.approx(3.0, abs=0.3)
    assert weights[1] < 0.2
    few, _ = fit_logistic(values[:3], right[:3], towards=WEIGHTS[:2], strength=50.0)
    assert np.allclose(few, WEIGHTS[:2], atol=0.1)
    opposite, _ = fit_logistic(values, ~right, towards=np.array([1.0, 1.0]), strength=1.0)
    assert opposite[0] == 0.0


def test_probabilities_never_fall_and_are_never_certain() -> None:
    scores = np.linspace(0, 1, 300)
    right = np.random.default_rng(1).random(300) < scores
    knots, values = fit_steps(scores, right)
    assert (np.diff(values) >= 0).all()
    assert (np.diff(knots) > 0).all()
    assert 0 < values[0] < values[-1] < 1
    assert abs(step_values(scores, knots, values) - scores).mean() < 0.06
    assert step_values(np.array([5.0]), *fit_steps(np.empty(0), np.empty(0, bool))).tolist() == [0.5]


def test_an_answer_with_less_evidence_than_any_labelled_photo_is_not_known_though_all_were_right() -> None:
    some = population(400)
    labelled = some.take(some.right)
    fitted = fit(labelled)
    lowest = float(fitted.ranking.scores(labelled.signs).min())
    weakest, none = labelled.signs.min(axis=0) - 1e-3, np.zeros(len(SIGNS))
    scores = fitted.ranking.scores(np.stack([labelled.signs.max(axis=0), weakest, none]))
    values = step_values(scores, np.array(fitted.probability.scores), np.array(fitted.probability.values))
    assert scores[1] < lowest
    assert fitted.promises
    for promise in fitted.promises:
        assert promise.above is not None
        assert (scores > promise.above).tolist() == [True, False, False]
        assert promise.known == fitted.tested - 1
    assert values[0] > 0.99
    assert values[1] <= 0.5
    assert values[2] == (0.0 if scores[2] < lowest else values[0])
