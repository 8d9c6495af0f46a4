"""Comparing the matches of two answers that different threads or processes have computed."""

from __future__ import annotations

from typing import Any

import pytest

from storage.position import Position

__all__ = ["agreeing_matches", "agreeing_places"]

# Extraction differs in the last digits between batch sizes and numbers of threads. Votes round similarities
# to 1 / 2000; one on the border falls to either side, which moves the weight of its match by this much.
VOTE_STEP = 0.75 / 600 + 0.25 / 400


def agreeing_matches(got: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    """Whether two lists of matches, as JSON gives them, agree up to the last digits of the features.

    Similarities may differ by 2e-6, scores by one rounding step for each match; photos may change places only
    where their scores agree that closely. Everything else is compared exactly.
    """
    if [match["rank"] for match in got] != [match["rank"] for match in expected]:
        return False
    of_image = {match["image_id"]: match for match in expected}
    if len(of_image) != len(expected) or {match["image_id"] for match in got} != set(of_image):
        return False
    return all(
        _agree(match, of_image[match["image_id"]]) and _close(match["score"], at_rank["score"], at_rank)
        for match, at_rank in zip(got, expected, strict=True)
    )


def agreeing_places(got: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether two places agree up to the last digits of the features: to half a metre and a degree."""
    here, there = got["position"], expected["position"]
    if here is None or there is None:
        return got == expected
    loose = {"position", "radius_m", "heading_deg", "spread_m", "evidence", "probability_right"}
    apart_m = Position.of(here).distance_m(Position.of(there))
    return (
        {name: value for name, value in got.items() if name not in loose}
        == {name: value for name, value in expected.items() if name not in loose}
        and (apart_m is None or apart_m < 0.5)
        and (got["radius_m"] is None) == (expected["radius_m"] is None)
        and (got["radius_m"] or 0.0) == pytest.approx(expected["radius_m"] or 0.0, rel=0.05)
        and set(got["evidence"][:1]) == set(expected["evidence"][:1])
    )


def _agree(got: dict[str, Any], expected: dict[str, Any]) -> bool:
    loose = {"rank", "similarity", "score"}
    exact = {name: value for name, value in expected.items() if name not in loose}
    return (
        {name: value for name, value in got.items() if name not in loose} == exact
        and got["similarity"] == pytest.approx(expected["similarity"], abs=2e-6)
        and _close(got["score"], expected["score"], expected)
    )


def _close(got: float | None, expected: float | None, match: dict[str, Any]) -> bool:
    if got is None or expected is None:
        return got is expected
    step = VOTE_STEP if match["score_kind"] == "votes" else 0.0
    return got == pytest.approx(expected, abs=1e-4 + step * match["mutual_matches"])
