"""Early stopping of re-ranking: by a clear leader or by a time budget.

Candidates are matched in blocks, in the order of their global similarity. Matching stops early when

- the largest count exceeds the mean of the others by a number of their standard deviations (chance matches of
  wrong places scatter around a mean), or
- the time budget is spent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["StopRule", "match_in_blocks"]


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """When to stop matching; by default never.

    Attributes:
        block: Candidates per block; the rule is checked between blocks.
        min_candidates: Candidates matched before a lead can stop matching.
        lead: Standard deviations by which the largest count must exceed the mean of the others; None: never
            stop by lead.
        budget_s: Seconds after which no further block is started; the first block is always matched. None: no
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
) -> list[int | None]:
    """Match candidates in blocks until the rule stops it.

    Args:
        size: K, the number of candidates; candidate 0 is the most similar one.
        match: Returns the counts of the candidates in a range; None for one whose features cannot be read.
        rule: When to stop.

    Returns:
        Counts of the candidates matched, in order; the rest were skipped.

    Raises:
        ValueError: `match` returns another number of counts than the range has candidates.
    """
    started = time.perf_counter()
    counts: list[int | None] = []
    for begin in range(0, size, rule.block):
        if begin and (_leads(counts, rule) or _is_spent(time.perf_counter() - started, rule)):
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
    """Return whether the largest count exceeds the others by the lead of the rule.

    The variance of the others is bounded below by their mean, the variance of a Poisson distribution.
    """
    known = sorted(count for count in counts if count is not None)
    if rule.lead is None or len(counts) < rule.min_candidates or len(known) < 3:
        return False
    *others, best = known
    mean = sum(others) / len(others)
    variance = sum((other - mean) ** 2 for other in others) / (len(others) - 1)
    return best - mean >= rule.lead * math.sqrt(max(variance, mean, 1.0))
