"""A calibration: what it says about an answer, what makes it invalid, and files that somebody spoilt."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from serving.answer import Match, PlaceRecord, unknown_place
from serving.matching_options import Matching
from serving.places.calibration import Calibration, Ranking, Steps, is_known, radii_of
from serving.places.conditions import ScoreConditions
from serving.places.errors import LevelNotPromised, NotCalibrated
from serving.places.evidence import Evidence
from serving.places.places import Asked, Places
from serving.places.promises import Promise
from serving.places.signs import SIGNS, WEIGHTS, signs_of
from storage.calibration_file import CALIBRATION_FILE
from storage.position import Position
from tests.serving.places.test_position import street
from tests.support.store_samples import make_card

CARD = make_card()


def conditions(**changes: Any) -> ScoreConditions:
    made = ScoreConditions.of(CARD, Matching(), candidates=100, rerank=True, precision="float32")
    return dataclasses.replace(made, **changes)


def calibration(**changes: Any) -> Calibration:
    made = Calibration(
        conditions=conditions(),
        rows=1000,
        threshold_m=25.0,
        photos=300,
        elsewhere=90,
        ranking=Ranking(WEIGHTS, -8.0),
        probability=Steps((-2.0, 2.0), (0.1, 0.95)),
        radii=Steps((-2.0, 0.0), (80.0, 12.0)),
        promises=(Promise(0.05, 2.0, 80, 0, 0.04), Promise(0.2, 0.0, 150, 11, 0.15)),
        confidence=0.9,
        max_wrong=0.1,
        made_at="2026-11-28T10:00:00+00:00",
        dataset="city",
        search_method="exact",
    )
    return dataclasses.replace(made, **changes)


class FakeStore:
    """A store with a calibration file alone."""

    def __init__(self, values: dict[str, Any] | None) -> None:
        self.values = values

    def measured(self, name: str) -> dict[str, Any] | None:
        return self.values if name == CALIBRATION_FILE else None

    def measured_stamp(self, name: str) -> object:
        return json.dumps(self.values) if name == CALIBRATION_FILE else None


CLEAR = street((48.2, 16.37), [0.0, 10.0, 300.0], [50.0, 40.0, 8.0])
NOWHERE = [Match(1, PlaceRecord("a", "a", Position()), 0.9, 40, 40.0, "votes")]
DOUBTFUL = street((48.2, 16.37), [0.0, 300.0, 600.0], [10.0, 9.5, 9.0])


def asked(**changes: Any) -> Asked:
    return dataclasses.replace(Asked(conditions=conditions(), rows=1000, search_method="exact"), **changes)


def test_the_file_holds_the_calibration() -> None:
    written = json.loads(json.dumps(calibration().to_dict()))
    read = Calibration.from_dict(written)
    assert read.to_dict() == calibration().to_dict()
    assert read.conditions == conditions()


def test_answers_carry_probability_and_known() -> None:
    places = Places(FakeStore(calibration().to_dict()))
    clear, about = places.answer(CLEAR, CARD, asked())
    doubtful, _ = places.answer(DOUBTFUL, CARD, asked())
    assert clear["probability_right"] > doubtful["probability_right"]
    assert (clear["known"], doubtful["known"]) == (True, False)
    assert clear["radius_m"] < doubtful["radius_m"]
    assert clear["calibrated"] is doubtful["calibrated"] is True
    # 0.1 was asked for; the largest promised level up to it is 0.05.
    assert (about["valid"], about["max_wrong"], about["guaranteed"]) == (True, 0.05, True)


def test_a_narrowed_search_is_an_estimate_without_a_guarantee() -> None:
    places = Places(FakeStore(calibration().to_dict()))
    place, about = places.answer(CLEAR, CARD, asked(narrowed=True))
    assert place["known"] is True
    assert (about["valid"], about["guaranteed"]) == (True, False)
    assert "filter" in about["reason"]


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(ScoreConditions)])
def test_any_other_condition_makes_it_invalid_and_the_answer_says_which(name: str) -> None:
    other = conditions(**{name: (64, 64) if name == "image_size" else 7})
    places = Places(FakeStore(calibration().to_dict()))
    place, about = places.answer(CLEAR, CARD, asked(conditions=other))
    assert (place["probability_right"], place["known"], place["calibrated"]) == (None, None, False)
    assert (about["valid"], about["guaranteed"]) == (False, False)
    assert name in about["reason"]
    with pytest.raises(NotCalibrated, match="placeray calibrate") as refused:
        places.answer(CLEAR, CARD, asked(conditions=other, max_wrong=0.1))
    assert (refused.value.exit_code, refused.value.http_status) == (5, 409)


def test_growth_by_more_than_half_makes_it_invalid() -> None:
    assert calibration().why_invalid(conditions(), 1500) is None
    assert "1501" in str(calibration().why_invalid(conditions(), 1501))
    assert calibration().why_invalid(conditions(), 10) is None


def test_levels_up_to_the_one_asked_for() -> None:
    made = calibration()
    assert [made.promise(level).level for level in (0.05, 0.1, 0.2, 0.9)] == [0.05, 0.05, 0.2, 0.2]
    with pytest.raises(LevelNotPromised, match=r"0\.05") as refused:
        made.promise(0.04)
    assert refused.value.exit_code == 2
    evidence = Evidence.of(CLEAR)
    assert evidence is not None
    score, _ = made.probability_of(signs_of(evidence))
    lines = (Promise(0.05, score + 0.1, 80, 0, 0.04), Promise(0.2, score - 0.1, 150, 11, 0.15))
    places = Places(FakeStore(calibration(promises=lines).to_dict()))
    for level, known in ((0.05, False), (0.2, True)):
        place = places.answer(CLEAR, CARD, asked(max_wrong=level)).place
        assert place["known"] is known


def test_without_a_calibration_nothing_is_claimed() -> None:
    places = Places(FakeStore(None))
    place, about = places.answer(CLEAR, CARD, asked())
    assert (place["probability_right"], place["known"]) == (None, None)
    assert about["valid"] is False
    with pytest.raises(NotCalibrated):
        places.answer(CLEAR, CARD, asked(max_wrong=0.05))
    place, about = places.answer([], CARD, asked())
    assert place == unknown_place()
    assert (about["exists"], about["reason"]) == (False, "it was never calibrated")


@pytest.mark.parametrize(
    ("ranked", "words"), [(NOWHERE, "no candidate has a position"), ([], "there is no candidate")]
)
def test_a_calibration_says_nothing_about_answers_without_a_position(ranked: list[Match], words: str) -> None:
    places = Places(FakeStore(calibration().to_dict()))
    place, about = places.answer(ranked, CARD, asked(max_wrong=0.1))
    assert place == unknown_place()
    assert set(place) == set(places.answer(CLEAR, CARD, asked()).place)
    assert (place["known"], place["calibrated"]) == (None, False)
    assert (about["exists"], about["valid"], about["guaranteed"]) == (True, False, False)
    assert about["reason"].startswith(words)
    other = asked(conditions=conditions(candidates=7))
    assert "candidates 7" in places.answer(ranked, CARD, other).calibration["reason"]


def test_another_search_method_changes_no_score_but_nothing_is_guaranteed() -> None:
    places = Places(FakeStore(calibration().to_dict()))
    exact, _ = places.answer(CLEAR, CARD, asked())
    place, about = places.answer(CLEAR, CARD, asked(search_method="ivf", max_wrong=0.1))
    assert place == exact
    assert (about["valid"], about["max_wrong"], about["guaranteed"]) == (True, 0.05, False)
    assert "ivf instead of exact" in about["reason"]
    same = Places(FakeStore(calibration(search_method="ivf").to_dict()))
    assert same.answer(CLEAR, CARD, asked(search_method="ivf")).calibration["guaranteed"] is True
    unnamed = {name: value for name, value in calibration().to_dict().items() if name != "search_method"}
    about = Places(FakeStore(unnamed)).answer(CLEAR, CARD, asked()).calibration
    assert (about["valid"], about["guaranteed"]) == (True, False)
    assert "does not name" in about["reason"]


SPOILT: list[dict[str, Any]] = [
    {"format": 2},
    {"signs": ["ratio"]},
    {"signs": None},
    {"weights": [1.0] * (len(SIGNS) - 1)},
    {"weights": [float("nan")] * len(SIGNS)},
    {"weights": [-1.0] * len(SIGNS)},
    {"intercept": "0"},
    {"rows": -1},
    {"rows": 1.5},
    {"conditions": {}},
    {"conditions": None},
    {"probability": {"scores": [0.0], "values": [1.5]}},
    {"probability": {"scores": [1.0, 0.0], "values": [0.1, 0.2]}},
    {"probability": []},
    {"radii": {"scores": [0.0], "values": []}},
    {"promises": [{}]},
    {"promises": [[]]},
    {"promises": {"level": 0.1}},
    {"confidence": 3},
    {"max_wrong": None},
]


@pytest.mark.parametrize("change", SPOILT, ids=str)
def test_a_spoilt_file_is_as_good_as_none(change: dict[str, Any]) -> None:
    values = calibration().to_dict() | change
    with pytest.raises(ValueError, match=r"."):
        Calibration.from_dict(values)
    place = Places(FakeStore(values)).answer(CLEAR, CARD, asked()).place
    assert place["calibrated"] is False


def test_a_replaced_file_is_followed() -> None:
    now = [0.0]
    store = FakeStore(None)
    places = Places(store, clock=lambda: now[0])
    assert places.calibration(asked())[0] is None
    store.values = calibration().to_dict()
    now[0] += 5.0
    assert places.calibration(asked())[0] is not None


def test_known_needs_a_higher_score_than_the_line() -> None:
    promise = Promise(0.1, 1.5, 10, 0, 0.1)
    assert [is_known(promise, score) for score in (1.4, 1.5, 1.6)] == [False, False, True]
    assert is_known(Promise(0.1, None, 10, 0, 0.1), -100.0)


def test_radii_hold_nine_tenths_and_never_grow_with_the_score() -> None:
    random = np.random.default_rng(2)
    scores = random.normal(size=4000)
    errors = random.exponential(10.0, 4000) * np.exp(-scores)
    radii = radii_of(scores[:2000].tolist(), errors[:2000].tolist(), bins=20)
    assert list(radii.values) == sorted(radii.values, reverse=True)
    made = calibration(radii=radii)
    held = [error <= (made.radius_m(s) or 0) for s, error in zip(scores[2000:], errors[2000:], strict=True)]
    assert 0.87 < np.mean(held) < 0.95
    assert radii_of([], [], bins=3).values == ()
