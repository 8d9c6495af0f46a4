"""What candidates say by their scores, however many there are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from serving.answer import Match, PlaceRecord
from serving.places.evidence import Evidence
from serving.tracks.emission import EMISSIONS, leads_of, rarity_of
from storage.position import Position


def evidence(scores: list[float | None], kind: str | None, *, apart_m: float = 200.0) -> Evidence:
    """Return evidence whose candidates lie apart from each other, the best first."""
    matches = [
        Match(
            rank,
            PlaceRecord(
                f"p{rank}", "", Position(utm_e=500_000 + apart_m * rank, utm_n=4_000_000.0, utm_zone="33U")
            ),
            0.9 - 0.002 * rank,
            None if score is None else round(score),
            score,
            kind,  # type: ignore[arg-type]
        )
        for rank, score in enumerate(scores, start=1)
    ]
    found = Evidence.of(matches)
    assert found is not None
    return found


def test_the_lead_is_the_ratio_to_the_tenth_elsewhere() -> None:
    leads = leads_of(evidence([80.0, 40.0, *[20.0] * 30], "votes"))
    assert leads[0] == pytest.approx(math.log(4))
    assert leads[1] == pytest.approx(math.log(2))
    assert not leads[2:].any()


@pytest.mark.parametrize("count", [25, 50, 100])
def test_leads_do_not_depend_on_how_many_candidates_there_are(count: int) -> None:
    scores = [90.0, *np.linspace(30, 1, 100).tolist()]
    whole = leads_of(evidence(scores, "count"))
    np.testing.assert_allclose(leads_of(evidence(scores[:count], "count")), whole[:count])


def test_similarities_are_measured_by_their_own_spread() -> None:
    scores: list[float | None] = [None] * 40
    leads = leads_of(evidence(scores, None))
    assert leads[0] > leads[5] > 0
    assert not leads[12:].any()


@pytest.mark.parametrize("kind", ["votes", "count", None])
def test_few_or_odd_candidates_are_no_error(kind: str | None) -> None:
    for scores in ([5.0], [5.0, 5.0], [0.0, 0.0, 0.0], [7.0, None, 3.0], [1e12, 1.0]):
        given: list[float | None] = list(scores) if kind else [None] * len(scores)
        for apart_m in (0.0, 200.0):
            leads = leads_of(evidence(given, kind, apart_m=apart_m))
            assert np.isfinite(leads).all()
            assert (leads >= 0).all()


def test_likelihoods_rise_with_the_lead_and_are_bounded() -> None:
    for emission in EMISSIONS.values():
        logs = emission.log_likelihoods(np.linspace(0, 5, 50), rarity_of(10, 1000))
        assert (np.diff(logs) >= 0).all()
        assert logs[-1] < 9
        assert logs[-1] > 0 > emission.miss


def test_a_candidate_is_rarer_in_a_larger_store_up_to_a_bound() -> None:
    assert rarity_of(10, 10) == 1.0
    assert 1 < rarity_of(10, 100) < rarity_of(10, 1_000) == rarity_of(10, 10**7)
    assert rarity_of(0, 0) == 1.0
