"""Re-ranking that stops when the candidates still to be matched will hardly change the first answer.

Candidates are matched block by block in the order of their global similarity. Two things end it early:

- a lead: the largest count stands far above those of the others matched so far (the chance matches of wrong
  places scatter around a mean; the distance is measured in their standard deviations);
- the time budget.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["StopRule", "match_in_blocks"]


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """When to stop; by default never.

    Attributes:
        block: Candidates matched at once, between two looks at the rule.
        min_candidates: Candidates matched before a lead may end it.
        lead: Standard deviations that the largest count has to stand above the others' mean; None: no lead
            ends it.
        budget_s: Seconds after which no further block begins; the first block is always matched. None: no
            limit.

    Raises:
        ValueError: a value is out of bounds.
    """

    block: int = 10
    min_candidates: int = 20
    lead: float | None = None
    budget_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("block", "min_candidates"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: pass at least 1")
        for name in ("lead", "budget_s"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} is {value}: pass None or a number of at least 0")


def match_in_blocks(
    size: int,
    match: Callable[[range], Sequence[int | None]],
    rule: StopRule,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> list[int | None]:
    """Match candidates until the rule ends it.

    Args:
        size: K, the number of candidates; candidate 0 is the most similar one.
        match: Returns the counts of the candidates in a range; None for one whose features cannot be read.
        rule: When to stop.
        clock: Seconds, for the budget.

    Returns:
        Counts of the first candidates; those beyond were left out.

    Raises:
        ValueError: `match` returns another number of counts than the range has candidates.
    """
    started = clock()
    counts: list[int | None] = []
    for begin in range(0, size, rule.block):
        if begin and (_leads(counts, rule) or _is_spent(clock() - started, rule)):
            break
        block = range(begin, min(begin + rule.block, size))
        matched = match(block)
        if len(matched) != len(block):
            raise ValueError(
                f"match returned {len(matched)} counts for {len(block)} candidates: return one for each"
            )
        counts.extend(matched)
    return counts


def _is_spent(seconds: float, rule: StopRule) -> bool:
    return rule.budget_s is not None and seconds >= rule.budget_s


def _leads(counts: list[int | None], rule: StopRule) -> bool:
    """Tell whether the largest count stands out from the others.

    The spread of the others is taken to be at least that of chance alone: counts of rare events have a
    variance as large as their mean.
    """
    known = sorted(count for count in counts if count is not None)
    if rule.lead is None or len(counts) < rule.min_candidates or len(known) < 3:
        return False
    *others, best = known
    mean = sum(others) / len(others)
    variance = sum((other - mean) ** 2 for other in others) / (len(others) - 1)
    return best - mean >= rule.lead * math.sqrt(max(variance, mean, 1.0))
