"""Re-ranking that stops when the candidates still to be matched will hardly change the first answers.

Candidates are matched block by block in the order of their global similarity. Three things end it early:

- certainty: the first answers all have `most` mutual neighbours, more than which no candidate can have;
- a lead: the first answers' counts stand far above those of the others matched so far (the chance matches of
  wrong places scatter around a mean; the distance is measured in their standard deviations), or `patience`
  candidates in a row have not entered the first answers;
- the time budget.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["AdaptiveRanking", "StopRule", "rank_adaptively"]

Reason = Literal["all", "certain", "lead", "patience", "budget"]


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """When to stop; the defaults never stop early but for certainty.

    Attributes:
        first: How many first answers are to be right.
        block: Candidates matched at once, between two looks at the rule.
        least: Candidates matched before a lead or patience may end it.
        most: Largest count that a candidate can have (the number of a query's cells), None if unknown.
        lead: Standard deviations that the last of the first answers has to stand above the others' mean.
        patience: Candidates in a row that did not enter the first answers.
        budget_s: Seconds after which no further block begins; the first block is always matched.
    """

    first: int = 1
    block: int = 10
    least: int = 20
    most: int | None = None
    lead: float | None = None
    patience: int | None = None
    budget_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("first", "block", "least"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: pass at least 1")
        for name in ("most", "lead", "patience", "budget_s"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} is {value}: pass None or a number of at least 0")


@dataclass(frozen=True)
class AdaptiveRanking:
    """Candidates in their new order.

    Attributes:
        order: Indices of all K candidates, best first: the matched by count, then the others by similarity.
            Equal counts keep the order of similarity.
        counts: Count of each of the K candidates, None where it was not matched.
        matched: How many were matched.
        reason: What ended it.
    """

    order: tuple[int, ...]
    counts: tuple[int | None, ...]
    matched: int
    reason: Reason


def rank_adaptively(
    similarities: Sequence[float],
    match: Callable[[list[int]], Sequence[int | None]],
    rule: StopRule,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> AdaptiveRanking:
    """Match candidates until the rule ends it, and order them.

    Args:
        similarities: K global similarities, larger is better, in any order.
        match: Gives the counts of the candidates with these indices; None for one whose features cannot be
            read, which then keeps to the others' end.
        rule: When to stop.
        clock: Seconds, for the budget.

    Raises:
        ValueError: a similarity is NaN, or `match` gives another number of counts than it was asked for.
    """
    if any(math.isnan(value) for value in similarities):
        raise ValueError("similarities hold NaN: search again with finite descriptors")
    started = clock()
    turns = sorted(range(len(similarities)), key=lambda i: -similarities[i])
    counts: dict[int, int | None] = {}
    reason: Reason = "all"
    for begin in range(0, len(turns), rule.block):
        if begin:
            stop = _stop(turns[:begin], counts, rule)
            if stop is None and rule.budget_s is not None and clock() - started >= rule.budget_s:
                stop = "budget"
            if stop is not None:
                reason = stop
                break
        asked = turns[begin : begin + rule.block]
        found = match(asked)
        if len(found) != len(asked):
            raise ValueError(f"match gave {len(found)} counts for {len(asked)} candidates: give one for each")
        counts.update(zip(asked, found, strict=True))
    return AdaptiveRanking(
        order=tuple(_order(turns, counts)),
        counts=tuple(counts.get(i) for i in range(len(similarities))),
        matched=len(counts),
        reason=reason,
    )


def _order(turns: list[int], counts: dict[int, int | None]) -> list[int]:
    counted = {i: count for i in turns if (count := counts.get(i)) is not None}
    return [*sorted(counted, key=lambda i: -counted[i]), *(i for i in turns if i not in counted)]


def _stop(turns: list[int], counts: dict[int, int | None], rule: StopRule) -> Reason | None:
    """Say why to stop after these candidates, in the order in which they were matched."""
    ranked = [i for i in _order(turns, counts) if counts[i] is not None]
    first, others = ranked[: rule.first], ranked[rule.first :]
    if len(first) < rule.first:
        return None
    last = counts[first[-1]] or 0
    if rule.most is not None and last >= rule.most:
        return "certain"  # equal counts keep the order of similarity: nobody later passes by
    if len(turns) < rule.least:
        return None
    if (
        rule.lead is not None
        and len(others) > 1
        and _stands_out(last, [counts[i] or 0 for i in others], rule.lead)
    ):
        return "lead"
    entered = max(turns.index(i) for i in first)
    if rule.patience is not None and len(turns) - 1 - entered >= rule.patience:
        return "patience"
    return None


def _stands_out(count: int, others: list[int], lead: float) -> bool:
    """Compare a count with the spread of others.

    The spread is at least that of chance alone: counts of rare events have a variance as large as their mean.
    """
    mean = sum(others) / len(others)
    variance = sum((other - mean) ** 2 for other in others) / (len(others) - 1)
    return count - mean >= lead * math.sqrt(max(variance, mean, 1.0))
