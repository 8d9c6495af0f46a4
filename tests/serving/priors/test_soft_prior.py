"""The soft prior: how positions weigh, how hits are ordered, and that nothing is left out."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.priors.soft_prior import ELSEWHERE, SoftPrior, weighed_score, weighed_similarity
from storage.position import Position, geodesics
from storage.records import Candidate, ImageRecord
from storage.search.filters import BadFilter
from tests.support.positions import at, utm_only

PRIOR = SoftPrior(48.0, 11.5, 100.0)


def away(metres: float, *, lat: float = 48.0, lon: float = 11.5) -> Position:
    east, north, _ = geodesics().fwd(lon, lat, 30.0, metres)
    return Position(lat=north, lon=east)


def hit(name: str, similarity: float, position: Position) -> Candidate:
    return Candidate(ImageRecord(name, "", "", 1, 1, position, None, None, "s", 0), similarity)


def test_weights_fall_with_the_distance_from_one_to_an_even_share() -> None:
    weights = PRIOR.weights([away(metres) for metres in (0.0, 50.0, 100.0, 200.0, 5_000.0)])
    assert weights[0] == pytest.approx(1.0)
    assert (np.diff(weights) < 0).all()
    assert weights[2] == pytest.approx(ELSEWHERE + (1 - ELSEWHERE) * math.exp(-0.5), abs=1e-3)
    assert weights[-1] == pytest.approx(ELSEWHERE)
    assert PRIOR.weights([Position()]).tolist() == [ELSEWHERE]
    assert PRIOR.weights([]).tolist() == []


@pytest.mark.parametrize(("lat", "lon"), [(48.0, 12.0), (0.0, 6.0), (-33.0, 179.9999), (85.5, 20.0)])
def test_weights_do_not_jump_at_borders_of_zones_at_the_meridian_or_near_the_pole(
    lat: float, lon: float
) -> None:
    prior = SoftPrior(lat, lon, 300.0)
    around = [geodesics().fwd(lon, lat, azimuth, 300.0)[:2] for azimuth in range(0, 360, 20)]
    weights = prior.weights([Position(lat=north, lon=east) for east, north in around])
    assert np.ptp(weights) < 1e-3
    assert weights[0] == pytest.approx(ELSEWHERE + (1 - ELSEWHERE) * math.exp(-0.5), abs=2e-3)


def test_positions_in_utm_weigh_as_those_in_degrees() -> None:
    spots = [at(48.0, 11.5), at(48.001, 11.5)]
    assert PRIOR.weights([utm_only(spot) for spot in spots]) == pytest.approx(PRIOR.weights(spots), abs=1e-4)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1000)), max_size=12))
def test_every_hit_stays_and_the_order_is_that_of_weighed_similarity(
    listed: list[tuple[float, float]],
) -> None:
    listed.sort(reverse=True)
    hits = [hit(str(i), similarity, away(metres)) for i, (similarity, metres) in enumerate(listed)]
    ordered, weights = PRIOR.reordered(hits)
    assert sorted(h.record.image_id for h in ordered) == sorted(h.record.image_id for h in hits)
    scores = weighed_similarity(np.array([h.similarity for h in ordered]), np.array(weights))
    assert (np.diff(scores) <= 0).all()
    assert all(ELSEWHERE <= weight <= 1 for weight in weights)


def test_a_near_hit_passes_one_that_is_a_little_more_similar_and_not_one_that_is_much_more() -> None:
    near = hit("near", 0.70, away(0.0))
    slightly, clearly = hit("far", 0.72, away(2_000.0)), hit("far", 0.95, away(2_000.0))
    assert [h.record.image_id for h in PRIOR.reordered([slightly, near])[0]] == ["near", "far"]
    assert [h.record.image_id for h in PRIOR.reordered([clearly, near])[0]] == ["far", "near"]
    assert weighed_score(10.0, 0.5) == 5.0
    assert weighed_score(None, 0.5) is None


@pytest.mark.parametrize(
    "values",
    [(91.0, 0.0, 1.0), (0.0, 181.0, 1.0), (0.0, 0.0, 0.0), (float("nan"), 0.0, 1.0), (0, 0, float("inf"))],
)
def test_priors_out_of_range_are_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(BadFilter, match="give"):
        SoftPrior(*values)


def test_a_prior_travels_between_processes() -> None:
    assert pickle.loads(pickle.dumps(PRIOR)) == PRIOR
