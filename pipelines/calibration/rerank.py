"""Finds on labelled photos when re-ranking helps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.calibration.rerank_trials import BLENDS, Trials
from pipelines.evaluation.result import QueryOutcome
from pipelines.evaluation.sign_test import p_value_of
from serving.places.rerank_rule import RerankRule

__all__ = ["find_rule", "rule_of"]

Rights = NDArray[np.bool_]

_BY_CHANCE = 0.05  # two-sided: what differs less surely is a matter of which photos were labelled
_MIN_SKIPPED = 20  # photos above the margin: fewer say too little
# Re-ranking corrected first answers of hard drawn cities up to a margin of 0.09 and of the corridor up to
# 0.14, one of 111 at 0.27: photos that are easy must not decide for others that are not.
_LEAST_MARGIN = 0.2
_CAUTION = 1.25  # times the largest margin of a first stage that re-ranking corrected


def find_rule(outcomes: Sequence[QueryOutcome], *, hits: int, ms_per_query: float) -> RerankRule:
    """Find when to re-rank, from queries that were re-ranked with every candidate.

    Args:
        outcomes: Of the labelled queries.
        hits: How many of the most similar candidates are re-ranked.
        ms_per_query: What fetching and matching took.
    """
    return rule_of(Trials.of(outcomes, hits=hits), ms_per_query=ms_per_query)


def rule_of(trials: Trials, *, ms_per_query: float) -> RerankRule:
    """Find when to re-rank.

    The model's default, every query by the score alone, is departed from only on evidence. A blend, or no
    re-ranking at all, must be right more often in a paired sign test over places, since photos of one place
    gain and lose together: among few photos the best of several ways is the luckiest one. A query is left as
    it is where its margin exceeds, by a quarter, every margin at which re-ranking corrected a first answer,
    and every margin at which the first stage was wrong.

    Args:
        trials: Of the labelled queries.
        ms_per_query: What fetching and matching took.
    """
    if not len(trials):
        return RerankRule("all", ms_per_query=ms_per_query)
    blend = max(BLENDS, key=lambda value: (trials.after(value).sum(), -value))
    if not _better(trials, trials.after(blend), trials.after(0.0)):
        blend = 0.0
    before, after = trials.before, trials.after(blend)
    if _better(trials, before, after):
        return RerankRule("none", ms_per_query=ms_per_query)
    margin = max(_CAUTION * float(trials.margins[after & ~before].max(initial=0.0)), _LEAST_MARGIN)
    wrong = trials.margins[~before]  # a first stage that is wrong however clear is nothing to rely on
    margin = max(margin, float(wrong.max(initial=0.0)))
    if (trials.margins > margin).sum() < _MIN_SKIPPED:
        return RerankRule("all", blend=blend, ms_per_query=ms_per_query)
    return RerankRule("below", float(np.nextafter(margin, 2.0)), blend, ms_per_query)


def _better(trials: Trials, these: Rights, others: Rights) -> bool:
    """Return whether some answers are right at more places than others, by more than chance."""
    gained = np.bincount(np.unique(trials.places, return_inverse=True)[1], these.astype(float) - others)
    more, fewer = int((gained > 0).sum()), int((gained < 0).sum())
    return more > fewer and p_value_of(more, fewer) <= _BY_CHANCE
