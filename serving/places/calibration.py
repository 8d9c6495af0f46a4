"""The calibration of a store: how probable it is that an answer is right, and from where on that suffices."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.places.conditions import ScoreConditions
from serving.places.errors import LevelNotPromised
from serving.places.monotone import step_values
from serving.places.promises import Promise
from serving.places.rerank_rule import RerankRule
from serving.places.signs import SCALE, SIGNS
from storage.json_values import finite_number, whole_number

__all__ = ["FORMAT", "Calibration", "Ranking", "Steps", "is_known", "radii_of"]

Floats = NDArray[np.float64]

FORMAT = 1
_GROWN = 1.5  # times the rows that it was made with
_MAX_VALUES = 100_000
_MAX_ROWS = 10**12
_FARTHEST = 1e9
_SLACK = 1e-9  # 0.05 as it is read equals 0.05 as it was written


@dataclass(frozen=True, eq=False)
class Ranking:
    """The score that answers are ordered by: a sum of signs with weights of at least 0.

    Attributes:
        weights: (6,) of `SIGNS` over `SCALE`.
        intercept: Added to the sum.
    """

    weights: Floats
    intercept: float

    def scores(self, signs: Floats) -> Floats:
        """Return (N,) float64 for (N, 6) signs."""
        return np.asarray(signs / SCALE @ self.weights + self.intercept)


@dataclass(frozen=True)
class Steps:
    """A function of the score by its knots.

    Attributes:
        scores: Rising.
        values: As many.
    """

    scores: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What `calibrate` found out about a store.

    Attributes:
        conditions: What it holds for.
        rows: Rows of the store then.
        threshold_m: Up to which distance the first answer is right.
        photos: Labelled photos that it was made with.
        elsewhere: Photos of other places among them.
        ranking: Orders answers.
        probability: That the first answer is right, by score; linear between the knots.
        radii: In metres, by score: from each score on, up to the next.
        promises: Levels that can be promised, the strictest first.
        confidence: With which all of them hold.
        max_wrong: The level by which answers are called known unless a query asks for another.
        made_at: When, as ISO 8601.
        dataset: Name of the data set.
        search_method: How candidates were searched for. It changes no score, so it is not a condition; None:
            the file does not say it.
        rerank: What `--rerank auto` does, see `serving.places.rerank_rule`; None: nothing was found out.
    """

    conditions: ScoreConditions
    rows: int
    threshold_m: float
    photos: int
    elsewhere: int
    ranking: Ranking
    probability: Steps
    radii: Steps
    promises: tuple[Promise, ...]
    confidence: float
    max_wrong: float
    made_at: str
    dataset: str
    search_method: str | None = None
    rerank: RerankRule | None = None

    def why_invalid(self, conditions: ScoreConditions, rows: int) -> str | None:
        """Return why the calibration does not hold for a query; None where it does.

        Args:
            conditions: Of the query.
            rows: Of the version that is searched.
        """
        difference = conditions.difference(self.conditions)
        if difference is not None:
            return f"it was made for other conditions: {difference}"
        if rows > _GROWN * self.rows:
            return f"the store has grown from {self.rows} to {rows} images since"
        return None

    def probability_of(self, signs: Floats) -> tuple[float, float]:
        """Return the score of an answer and the probability that it is right."""
        score = float(self.ranking.scores(signs[None])[0])
        knots, values = np.array(self.probability.scores), np.array(self.probability.values)
        return score, float(step_values(np.array([score]), knots, values)[0])

    def radius_m(self, score: float) -> float | None:
        """Return the radius that held the truth for 90 % of the labelled photos of such a score."""
        if not self.radii.values:
            return None
        at = bisect.bisect_right(self.radii.scores, score) - 1
        return self.radii.values[max(at, 0)]

    def promise(self, max_wrong: float | None = None) -> Promise:
        """Return the largest promised level up to a share of wrong answers.

        Args:
            max_wrong: The share; None: the one that the calibration was made for.

        Raises:
            LevelNotPromised: it is below the smallest level that is promised.
        """
        wanted = self.max_wrong if max_wrong is None else max_wrong
        kept = [promise for promise in self.promises if promise.level <= wanted + _SLACK]
        if not kept:
            smallest = self.promises[0].level if self.promises else 1.0
            raise LevelNotPromised(
                f"at most {wanted:g} wrong was not promised by the calibration, whose smallest level is "
                f"{smallest:g}: ask for that, or calibrate with more labelled photos"
            )
        return kept[-1]

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON of the file."""
        return {
            "format": FORMAT,
            "made_at": self.made_at,
            "dataset": self.dataset,
            "photos": self.photos,
            "elsewhere": self.elsewhere,
            "rows": self.rows,
            "threshold_m": self.threshold_m,
            "conditions": self.conditions.to_dict(),
            "search_method": self.search_method,
            "signs": list(SIGNS),
            "weights": self.ranking.weights.tolist(),
            "intercept": self.ranking.intercept,
            "probability": {name: list(values) for name, values in vars(self.probability).items()},
            "radii": {name: list(values) for name, values in vars(self.radii).items()},
            "confidence": self.confidence,
            "max_wrong": self.max_wrong,
            "promises": [vars(promise) for promise in self.promises],
            "rerank": None if self.rerank is None else self.rerank.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Read the values of a file that may be anybody's.

        Raises:
            ValueError: they are not such values.
        """
        if values.get("format") != FORMAT or values.get("signs") != list(SIGNS):
            raise ValueError("another format: calibrate again")
        conditions, listed = values.get("conditions"), values.get("promises")
        if not isinstance(conditions, dict) or not isinstance(listed, list) or len(listed) > _MAX_VALUES:
            raise ValueError("conditions or promises are missing: calibrate again")
        weights = _numbers(values.get("weights"), 0.0, _FARTHEST)
        if len(weights) != len(SIGNS):
            raise ValueError("a weight is missing: calibrate again")
        rerank, method = values.get("rerank"), values.get("search_method")
        return cls(
            conditions=ScoreConditions.from_dict(conditions),
            rows=whole_number(values.get("rows"), 0, _MAX_ROWS),
            threshold_m=finite_number(values.get("threshold_m"), 0.0, 1e7),
            photos=whole_number(values.get("photos"), 0, _MAX_ROWS),
            elsewhere=whole_number(values.get("elsewhere"), 0, _MAX_ROWS),
            ranking=Ranking(np.array(weights), finite_number(values.get("intercept"), -_FARTHEST, _FARTHEST)),
            probability=_steps(values.get("probability"), highest=1.0),
            radii=_steps(values.get("radii"), highest=_FARTHEST),
            promises=tuple(sorted(map(_promise, listed), key=lambda promise: promise.level)),
            confidence=finite_number(values.get("confidence"), 0.0, 1.0),
            max_wrong=finite_number(values.get("max_wrong"), 0.0, 1.0),
            made_at=str(values.get("made_at"))[:40],
            dataset=str(values.get("dataset"))[:200],
            search_method=None if method is None else str(method)[:20],
            rerank=RerankRule.from_dict(rerank) if isinstance(rerank, dict) else None,
        )


def _numbers(values: object, lowest: float, highest: float) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) > _MAX_VALUES:
        raise ValueError("a list of numbers is missing: calibrate again")
    return tuple(finite_number(value, lowest, highest) for value in values)


def _steps(values: object, *, highest: float) -> Steps:
    if not isinstance(values, dict):
        raise ValueError("a curve is missing: calibrate again")
    scores = _numbers(values.get("scores"), -_FARTHEST, _FARTHEST)
    heights = _numbers(values.get("values"), 0.0, highest)
    if len(scores) != len(heights) or any(b < a for a, b in itertools.pairwise(scores)):
        raise ValueError("a curve is out of order: calibrate again")
    return Steps(scores, heights)


def _promise(values: object) -> Promise:
    if not isinstance(values, dict):
        raise ValueError("a promise is missing: calibrate again")
    above = values.get("above")
    return Promise(
        level=finite_number(values.get("level"), 0.0, 1.0),
        above=None if above is None else finite_number(above, -_FARTHEST, _FARTHEST),
        known=whole_number(values.get("known"), 0, _MAX_ROWS),
        wrong=whole_number(values.get("wrong"), 0, _MAX_ROWS),
        bound=finite_number(values.get("bound"), 0.0, 1.0),
    )


def is_known(promise: Promise, score: float) -> bool:
    """Return whether an answer of this score is called known by a promise."""
    return math.isfinite(score) and (promise.above is None or score > promise.above)


def radii_of(scores: Sequence[float], errors_m: Sequence[float], *, bins: int, share: float = 0.9) -> Steps:
    """Return the radius that holds a share of the errors, for bins of equally many scores.

    The conformal quantile of each bin (the ceiling of share times n + 1, Vovk et al. 2005), so that a new
    photo of the bin lies within it with at least this probability. A better score gets no larger radius.
    """
    order = np.argsort(scores, kind="stable")
    ordered, errors = np.asarray(scores, np.float64)[order], np.asarray(errors_m, np.float64)[order]
    edges: list[float] = []
    radii: list[float] = []
    for rows in np.array_split(np.arange(len(ordered)), max(1, bins)):
        if len(rows):
            at = min(len(rows), math.ceil(share * (len(rows) + 1))) - 1
            edges.append(float(ordered[rows[0]]))
            radii.append(round(float(np.sort(errors[rows])[at]), 2))
    falling = list(itertools.accumulate(reversed(radii), max))[::-1]
    return Steps(tuple(edges), tuple(falling))
