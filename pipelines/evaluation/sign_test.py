"""The sign test: whether a split of gains and losses is more uneven than chance."""

from __future__ import annotations

import math

__all__ = ["p_value_of"]


def p_value_of(gained: int, lost: int) -> float:
    """Return the two-sided probability of a split as uneven or more where both outcomes are equally likely.

    McNemar's test in its exact binomial form (McNemar, "Note on the sampling error of the difference between
    correlated proportions or percentages", Psychometrika 1947).
    """
    total, fewer = gained + lost, min(gained, lost)
    tail = sum(math.comb(total, i) for i in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**total))
