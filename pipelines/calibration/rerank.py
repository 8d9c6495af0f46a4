"""Finds on labelled photos when re-ranking helps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.result import QueryOutcome
from serving.places.rerank_rule import RerankRule, blended, first_margin
from storage.records import Candidate

__all__ = ["find_rule"]

Floats = NDArray[np.float64]
Rights = NDArray[np.bool_]

BLENDS = (0.0, 0.15, 0.3, 0.6)
_CLEARLY = 2  # queries that something must gain before it is preferred
_MIN_SKIPPED = 20  # photos above the margin: fewer say too little
# Re-ranking corrected first answers of drawn cities up to a margin of 0.01 and of the corridor up to 0.10,
# one of 111 at 0.29: photos that are easy must not decide for others that are not.
_LEAST_MARGIN = 0.2
_CAUTION = 1.25  # times the largest margin of a first stage that re-ranking corrected


def find_rule(outcomes: Sequence[QueryOutcome], *, hits: int, ms_per_query: float) -> RerankRule:
    """Find when to re-rank, from queries that were re-ranked with every candidate.

    The blend and the two extremes are preferred only where they gain two queries or more. Below that, a
    query is left as it is where its margin exceeds, by a quarter, every margin at which re-ranking corrected
    a first answer.

    Args:
        outcomes: Of the labelled queries.
        hits: How many of the most similar candidates are re-ranked.
        ms_per_query: What fetching and matching took.
    """
    answered = [outcome for outcome in outcomes if outcome.matches and outcome.positives]
    if not answered:
        return RerankRule("all", ms_per_query=ms_per_query)
    before = np.array([outcome.first_hit_global == 1 for outcome in answered])
    after = {blend: _right(answered, hits, blend) for blend in BLENDS}
    blend = max(BLENDS, key=lambda value: (after[value].sum(), -value))
    if after[blend].sum() < after[0.0].sum() + _CLEARLY:
        blend = 0.0
    gained = int(after[blend].sum()) - int(before.sum())
    if gained <= -_CLEARLY:
        return RerankRule("none", ms_per_query=ms_per_query)
    margins = np.array([first_margin(_hits(outcome, hits)) for outcome in answered])
    corrected = margins[after[blend] & ~before]
    margin = max(_CAUTION * float(corrected.max(initial=0.0)), _LEAST_MARGIN)
    wrong = margins[~before]  # a first stage that is wrong however clear is nothing to rely on
    margin = max(margin, float(wrong.max(initial=0.0)))
    if (margins > margin).sum() < _MIN_SKIPPED:
        return RerankRule("all", blend=blend, ms_per_query=ms_per_query)
    return RerankRule("below", float(np.nextafter(margin, 2.0)), blend, ms_per_query)


def _hits(outcome: QueryOutcome, hits: int) -> list[Candidate]:
    matches = [outcome.matches[row] for row in outcome.by_similarity()[:hits]]
    return [Candidate(match.record, match.similarity) for match in matches]  # type: ignore[arg-type]


def _right(outcomes: Sequence[QueryOutcome], hits: int, blend: float) -> Rights:
    """Return whether the first answer is right with a blend."""
    right = []
    for outcome in outcomes:
        rows = [row for row in outcome.by_similarity()[:hits] if outcome.matches[row].score is not None]
        if not rows:
            right.append(outcome.first_hit_reranked == 1)
            continue
        scores = np.array([outcome.matches[row].score for row in rows], np.float64)
        similarity = np.array([outcome.matches[row].similarity for row in rows])
        best = rows[int(np.argmax(blended(scores, similarity, blend)))]
        right.append(outcome.right[best])
    return np.array(right, np.bool_)
