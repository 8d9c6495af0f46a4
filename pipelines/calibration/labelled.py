"""Labelled answers: signs, whether the first answer is right, and how far off the place is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.place_figures import place_errors_m
from pipelines.evaluation.result import QueryOutcome
from serving.answer import Match, QueryResult
from serving.places.evidence import Evidence
from serving.places.signs import SIGNS, signs_of

__all__ = ["Labelled", "labelled_of", "unknown_of"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Labelled:
    """N labelled answers.

    Attributes:
        uris: The photos.
        signs: (N, 6) float64, see `serving.places.signs`.
        right: (N,) bool, whether the first answer is right.
        errors_m: (N,) float64, from the photo to the place of its answer; NaN where it is not known.
        places: (N,) int64, which photos are of one place.
    """

    uris: tuple[str, ...]
    signs: Floats
    right: NDArray[np.bool_]
    errors_m: Floats
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.uris)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Labelled:
        """Return the selected answers."""
        chosen = np.arange(len(self))[rows]
        uris = tuple(self.uris[row] for row in chosen)
        return Labelled(
            uris, self.signs[chosen], self.right[chosen], self.errors_m[chosen], self.places[chosen]
        )

    def joined(self, others: Labelled) -> Labelled:
        """Return these and others, which are of places of their own."""
        shift = int(self.places.max(initial=-1)) + 1
        return Labelled(
            self.uris + others.uris,
            np.concatenate([self.signs, others.signs]),
            np.concatenate([self.right, others.right]),
            np.concatenate([self.errors_m, others.errors_m]),
            np.concatenate([self.places, others.places + shift]),
        )


def labelled_of(outcomes: Sequence[QueryOutcome], *, hits: int) -> Labelled:
    """Return what the answers to the queries of a data set say; those without a place are left out.

    Args:
        outcomes: Of the queries.
        hits: How many of the most similar candidates a query makes its place of.
    """
    errors_m = place_errors_m(outcomes)
    kept = []
    for outcome, error_m in zip(outcomes, errors_m.tolist(), strict=True):
        first = set(outcome.by_similarity()[:hits])
        ranked = [match for row, match in enumerate(outcome.matches) if row in first]
        if (signs := _signs(ranked)) is not None:
            kept.append((outcome.uri, signs, bool(outcome.right[0]), error_m, outcome.cluster))
    return _labelled(kept)


def unknown_of(uris: Sequence[str], answers: Sequence[QueryResult]) -> Labelled:
    """Return what the answers to photos of other places say: all of them are wrong.

    Args:
        uris: The photos.
        answers: One per photo, with all candidates that its place is made of.
    """
    kept = []
    for number, (uri, answer) in enumerate(zip(uris, answers, strict=True)):
        if (signs := _signs(answer.matches)) is not None:
            kept.append((uri, signs, False, np.nan, number))
    return _labelled(kept)


def _signs(ranked: Sequence[Match]) -> Floats | None:
    evidence = Evidence.of(ranked)
    return None if evidence is None else signs_of(evidence)


def _labelled(kept: list[tuple[str, Floats, bool, float, int]]) -> Labelled:
    return Labelled(
        uris=tuple(row[0] for row in kept),
        signs=np.array([row[1] for row in kept], np.float64).reshape(-1, len(SIGNS)),
        right=np.array([row[2] for row in kept], np.bool_),
        errors_m=np.array([row[3] for row in kept], np.float64),
        places=np.array([row[4] for row in kept], np.int64),
    )
