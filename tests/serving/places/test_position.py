"""Positions of places: estimators on points, and answers from ranked matches."""

from __future__ import annotations

import numpy as np
import pytest

from serving.answer import Match
from serving.places.estimators import DEFAULT, ESTIMATORS
from serving.places.evidence import Evidence
from serving.places.position import locate, reach_of
from serving.places.signs import SIGNS, signs_of
from storage.position import Position, geodesics
from storage.records import ImageRecord


def match(rank: int, position: Position, score: float | None, *, heading: float | None = None) -> Match:
    record = ImageRecord(
        *(f"image-{rank}", "", "", 1, 1, position, heading, None, "", 0),
    )
    kind = None if score is None else "votes"
    return Match(rank, record, 0.9 - 0.01 * rank, None if score is None else 9, score, kind)  # type: ignore[arg-type]


def street(origin: tuple[float, float], offsets_m: list[float], scores: list[float | None]) -> list[Match]:
    """Matches along a street that runs east of an origin."""
    matches = []
    for rank, (offset, score) in enumerate(zip(offsets_m, scores, strict=True), start=1):
        lon, lat, _ = geodesics().fwd(origin[1], origin[0], 90.0, offset)
        place = Position(float(lat), float((lon + 180) % 360 - 180))
        matches.append(match(rank, place, score, heading=355.0 if rank % 2 else 5.0))
    return matches


ORIGINS = [
    (48.2, 16.37),
    (48.2, 17.99995),
    (-16.5, 179.99995),
    (71.0, -180.0),
    (86.0, 20.0),
    (-0.00001, 33.0),
]


@pytest.mark.parametrize("origin", ORIGINS)
def test_two_equal_neighbours_put_the_place_between_them(origin: tuple[float, float]) -> None:
    matches = street(origin, [0.0, 10.0, 300.0, 320.0], [50.0, 50.0, 8.0, 7.0])
    evidence = Evidence.of(matches)
    assert evidence is not None
    located = locate(evidence, 10.0)
    lat, lon = located.position.lat, located.position.lon
    assert geodesics().inv(origin[1], origin[0], lon, lat)[2] == pytest.approx(5.0, abs=0.05)
    assert located.evidence == ("image-1", "image-2")
    assert located.heading_deg == pytest.approx(0.0, abs=0.01) or located.heading_deg == pytest.approx(360.0)
    assert located.spread_m == pytest.approx(5.0, abs=0.1)


def test_a_stronger_neighbour_pulls_the_place() -> None:
    def along(scores: list[float | None]) -> float:
        evidence = Evidence.of(street((48.2, 16.37), [0.0, 10.0, -10.0, 300.0], scores))
        assert evidence is not None
        located = locate(evidence, 10.0).position
        return float(geodesics().inv(16.37, 48.2, located.lon, located.lat)[2])

    assert along([50.0, 40.0, 10.0, 8.0]) > along([50.0, 25.0, 10.0, 8.0]) > along([50.0, 9.0, 9.0, 8.0])


def test_what_is_elsewhere_does_not_move_the_place() -> None:
    near, far = [0.0, 5.0, -5.0], [200.0, 210.0, 220.0]
    alone = Evidence.of(street((48.2, 16.37), [*near, 500.0], [50.0, 40.0, 30.0, 10.0]))
    rivals = Evidence.of(street((48.2, 16.37), [*near, *far], [50.0, 40.0, 30.0, 10.0, 10.0, 10.0]))
    assert alone is not None
    assert rivals is not None
    apart_m = locate(alone, 10.0).position.distance_m(locate(rivals, 10.0).position)
    assert apart_m == pytest.approx(0.0, abs=0.5)


def test_matches_without_position_or_score_are_left_out() -> None:
    matches = street((48.2, 16.37), [0.0, 10.0], [50.0, None])
    unknown = match(3, Position(), 70.0)
    evidence = Evidence.of([unknown, *matches])
    assert evidence is not None
    assert locate(evidence, 10.0).evidence == ("image-1",)
    assert Evidence.of([unknown]) is None
    assert Evidence.of([]) is None
    blind = [match(each.rank, each.record.position, each.score, heading=None) for each in matches]
    evidence = Evidence.of(blind)
    assert evidence is not None
    assert locate(evidence, None).heading_deg is None


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_do_not_depend_on_where_and_how_the_city_lies(name: str) -> None:
    random = np.random.default_rng(3)
    points, weights = random.normal(0, 8, (30, 2)), np.sort(random.random(30))[::-1].copy()
    made = ESTIMATORS[name](points, weights, 20.0)
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = ESTIMATORS[name](points @ turn + (500.0, -70.0), weights, 20.0)
    assert np.allclose(made.point @ turn + (500.0, -70.0), moved.point, atol=0.05)
    assert moved.members.tolist() == made.members.tolist()
    assert moved.weights.sum() == pytest.approx(1.0)
    assert DEFAULT in ESTIMATORS


def test_reach_follows_the_spacing_within_bounds() -> None:
    assert [reach_of(value) for value in (0.5, 10.0, 1000.0, None)] == [5.0, 25.0, 60.0, 25.0]


def test_signs_tell_a_clear_answer_from_a_doubtful_one() -> None:
    clear = Evidence.of(street((48.2, 16.37), [0.0, 10.0, 300.0], [50.0, 40.0, 8.0]))
    doubtful = Evidence.of(street((48.2, 16.37), [0.0, 300.0, 600.0], [10.0, 9.5, 9.0]))
    assert clear is not None
    assert doubtful is not None
    higher, lower = (
        dict(zip(SIGNS, signs_of(clear), strict=True)),
        dict(zip(SIGNS, signs_of(doubtful), strict=True)),
    )
    for name in ("ratio", "lead", "strength", "agreement"):
        assert higher[name] > lower[name], name
    assert higher["ratio"] == pytest.approx(1 - 8 / 50)
