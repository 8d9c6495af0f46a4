"""Fits a calibration to labelled answers: the order on a quarter of the places, the promises on the others.

The order of answers is fitted on photos of some places, and from where on they are called known is tested on
photos of others, so that what is promised was never used to choose (learn-then-test). The probability and
the radii are fitted on all; they are estimates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.calibration.labelled import Labelled
from serving.places.calibration import Ranking, Steps, radii_of
from serving.places.errors import TooFewPhotos
from serving.places.monotone import fit_logistic, fit_steps
from serving.places.promises import CONFIDENCE, Promise, photos_needed, promises
from serving.places.signs import SCALE, WEIGHTS

__all__ = ["MIN_PHOTOS", "Fitted", "fit", "require_promise", "split_by_place"]

MIN_PHOTOS = 20
FITTED_SHARE = 0.25  # of the places
_STRENGTH = 20.0  # photos that the weights of signs for no data count as much as
_PER_RADIUS = 30  # photos
_UNHEARD_OF = 0.5  # probability at most, of a score below that of all labelled photos
_SEED = 0


@dataclass(frozen=True, eq=False)
class Fitted:
    """What was fitted.

    Attributes:
        ranking: The order of answers.
        probability: That an answer is right, by score.
        radii: In metres, by score.
        promises: Levels that can be promised.
        tested: Photos that they were tested on.
        tested_scores: (T,) float64 of these.
        tested_wrong: (T,) bool.
    """

    ranking: Ranking
    probability: Steps
    radii: Steps
    promises: tuple[Promise, ...]
    tested: int
    tested_scores: NDArray[np.float64]
    tested_wrong: NDArray[np.bool_]


def split_by_place(
    labelled: Labelled, share: float, *, seed: int = _SEED
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of a share of the places, drawn at random, and the rows of the others.

    Args:
        labelled: The answers.
        share: Of the places.
        seed: Of the draw.
    """
    places = np.unique(labelled.places)
    drawn = np.random.default_rng(seed).permutation(places)[: round(share * len(places))]
    first = np.isin(labelled.places, drawn)
    return np.flatnonzero(first), np.flatnonzero(~first)


def fit(labelled: Labelled, *, seed: int = _SEED) -> Fitted:
    """Fit a calibration.

    Args:
        labelled: At least `MIN_PHOTOS` answers.
        seed: Of the split.

    Raises:
        TooFewPhotos: there are fewer.
    """
    if len(labelled) < MIN_PHOTOS:
        raise TooFewPhotos(
            f"{len(labelled)} labelled photos are too few to calibrate with: give at least {MIN_PHOTOS}, "
            "and for a promise of 5 % a few hundred"
        )
    fitting, testing = split_by_place(labelled, FITTED_SHARE, seed=seed)
    weights, intercept = fit_logistic(
        labelled.signs[fitting] / SCALE, labelled.right[fitting], towards=WEIGHTS, strength=_STRENGTH
    )
    ranking = Ranking(weights, intercept)
    scores = ranking.scores(labelled.signs)
    located = np.isfinite(labelled.errors_m)
    bins = max(1, int(located.sum()) // _PER_RADIUS)
    return Fitted(
        ranking=ranking,
        probability=_probability(ranking, scores, labelled.right),
        radii=radii_of(scores[located].tolist(), labelled.errors_m[located].tolist(), bins=bins),
        promises=tuple(promises(scores[testing], ~labelled.right[testing])),
        tested=len(testing),
        tested_scores=scores[testing],
        tested_wrong=~labelled.right[testing],
    )


def _probability(ranking: Ranking, scores: NDArray[np.float64], right: NDArray[np.bool_]) -> Steps:
    """Return the probability by score.

    No labelled photo tells about a score below all of theirs: it is one half at most there, and falls to 0
    at the score of an answer that no sign speaks for.
    """
    knots, values = fit_steps(scores, right)
    lowest, none = float(scores.min()), float(ranking.scores(np.zeros((1, len(SCALE))))[0])
    if none < lowest:
        below = float(np.nextafter(lowest, -np.inf))
        values = np.append([0.0, min(_UNHEARD_OF, values[0]), values[0]], values)
        knots = np.append([none, below, lowest], knots)
    return Steps(tuple(knots.tolist()), tuple(values.tolist()))


def require_promise(fitted: Fitted, photos: int, max_wrong: float) -> None:
    """Check that a level up to `max_wrong` can be promised.

    Args:
        fitted: What was fitted.
        photos: How many labelled photos there were.
        max_wrong: The share of wrong answers among those called known.

    Raises:
        TooFewPhotos: none can; the message says how many photos it takes, and what can be promised.
    """
    if any(promise.level <= max_wrong + 1e-9 for promise in fitted.promises):
        return
    needed = photos_needed(fitted.tested_scores, fitted.tested_wrong, max_wrong)
    if needed is None:
        what = "however many there are, since too many of the surest answers are wrong"
    else:
        what = f"about {round(needed * photos / max(fitted.tested, 1))} like these are needed"
    possible = f"--max-wrong {fitted.promises[0].level:g} can be promised" if fitted.promises else ""
    step = f": give more, or {possible}" if possible else ": give more labelled photos"
    raise TooFewPhotos(
        f"at most {max_wrong:g} wrong cannot be promised with {photos} labelled photos and a confidence of "
        f"{CONFIDENCE:g}: {what}{step}"
    )
