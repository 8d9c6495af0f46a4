"""From which score on an answer may be called known, so that a stated share of these at most is wrong.

Learn-then-test (Angelopoulos, Bates, Candes, Jordan, Lei 2021, "Learn then test: calibrating predictive
algorithms to achieve risk control"): n labelled photos are ordered by a score that was fixed before. For each
of six shares of them, chosen in advance, the photos with the best scores are the answers that would be called
known; given the score of the next one, how many of m are wrong is binomial with the risk beyond that score.
Its upper bound (Clopper and Pearson 1934) holds for each with confidence 1 - delta / 6, so for all six at
once with 1 - delta. A level takes the largest set whose bound does not exceed it; all levels hold at once.
The largest set leaves out the photo with the lowest score: nothing speaks for an answer with less evidence
than any labelled photo had, be they all right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONFIDENCE", "LEVELS", "SHARES", "Promise", "photos_needed", "promises", "upper_bound"]

Floats = NDArray[np.float64]

LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)  # shares of wrong answers among those called known
CONFIDENCE = 0.9  # that none of the levels is exceeded
SHARES = (1.0, 0.85, 0.7, 0.55, 0.4, 0.25)  # of the photos, whose best are called known; of all, all but one
_MAX_PHOTOS = 10_000_000


@dataclass(frozen=True)
class Promise:
    """A level and what it takes.

    Attributes:
        level: At most this share of the answers called known is wrong.
        above: Answers with a higher score are called known; None: all, in calibrations of before.
        known: How many of the labelled photos that are.
        wrong: How many of them were wrong.
        bound: Upper bound of the share.
    """

    level: float
    above: float | None
    known: int
    wrong: int
    bound: float


@dataclass(frozen=True)
class _Cut:
    above: float
    known: int
    wrong: int
    bound: float


def promises(
    scores: Floats,
    wrong: NDArray[np.bool_],
    *,
    levels: tuple[float, ...] = LEVELS,
    confidence: float = CONFIDENCE,
) -> list[Promise]:
    """Return the levels that can be promised, the strictest first; valid all at once.

    Args:
        scores: (N,) of labelled photos that were not used to make the score.
        wrong: (N,) whether the answer to each is wrong.
        levels: Shares of wrong answers.
        confidence: With which the promises hold, over the draw of the labelled photos.
    """
    cuts = _cuts(scores, wrong, confidence)
    kept = []
    for level in sorted(levels):
        fitting = [cut for cut in cuts if cut.known and cut.bound <= level]
        if fitting:
            kept.append(Promise(level, **vars(max(fitting, key=lambda cut: cut.known))))
    return kept


def photos_needed(
    scores: Floats, wrong: NDArray[np.bool_], level: float, *, confidence: float = CONFIDENCE
) -> int | None:
    """Return about how many photos like these a level takes; None where no number would do.

    More photos make the bounds narrower, while the share of wrong answers stays: the fewest for which one of
    the sets, scaled up with its present share of wrong answers, keeps the level.
    """
    needed = []
    for cut, share in zip(_cuts(scores, wrong, confidence), SHARES, strict=True):
        # One wrong answer fewer than was seen: with few photos, none seen says little about the share.
        rate = cut.wrong / cut.known if cut.known else 1.0
        if rate < level:
            known = _smallest(rate, level, (1 - confidence) / len(SHARES))
            needed.append(max(math.ceil(known / share), known + 1))
    return min(needed, default=None)


def _cuts(scores: Floats, wrong: NDArray[np.bool_], confidence: float) -> list[_Cut]:
    order = np.argsort(-scores, kind="stable")
    ordered, mistaken = scores[order], np.concatenate([[0], np.cumsum(wrong[order])])
    cuts = []
    for share in SHARES:
        size = min(math.ceil(share * len(scores) - 1e-9), len(scores) - 1)
        above = float(ordered[size]) if len(scores) else math.inf
        known = int(np.searchsorted(-ordered, -above, side="left"))
        count = int(mistaken[known])
        bound = upper_bound(count, known, (1 - confidence) / len(SHARES)) if known else 1.0
        cuts.append(_Cut(above, known, count, bound))
    return cuts


@lru_cache(maxsize=65_536)
def upper_bound(wrong: int, known: int, alpha: float) -> float:
    """Return the upper bound of a share with confidence 1 - alpha (Clopper and Pearson, one-sided).

    Args:
        wrong: Successes.
        known: Trials, at least 1.
        alpha: Probability that the share is larger than the bound.
    """
    if wrong >= known:
        return 1.0
    counts = np.arange(wrong + 1)
    logs = np.array(
        [math.lgamma(known + 1) - math.lgamma(k + 1) - math.lgamma(known - k + 1) for k in counts.tolist()]
    )
    low, high = wrong / known, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if middle <= 0.0 or middle >= 1.0:
            break
        terms = logs + counts * math.log(middle) + (known - counts) * math.log1p(-middle)
        if np.exp(terms).sum() > alpha:
            low = middle
        else:
            high = middle
    return high


def _smallest(rate: float, level: float, alpha: float) -> int:
    """Return the smallest set in which this share of wrong answers keeps the level."""
    low, high = 0, 16
    while upper_bound(math.ceil(rate * high), high, alpha) > level:
        low, high = high, 2 * high
        if high > _MAX_PHOTOS:
            return _MAX_PHOTOS
    while high - low > 1:
        middle = (low + high) // 2
        if upper_bound(math.ceil(rate * middle), middle, alpha) > level:
            low = middle
        else:
            high = middle
    return high
