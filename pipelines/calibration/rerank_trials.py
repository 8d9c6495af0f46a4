"""What re-ranking did to labelled queries: the first answer without it, and with each blend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.result import QueryOutcome
from serving.places.rerank_rule import RerankRule, blended, first_margin
from storage.records import Candidate

__all__ = ["BLENDS", "Trials"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Rights = NDArray[np.bool_]

BLENDS = (0.0, 0.15, 0.3, 0.6)


@dataclass(frozen=True, eq=False)
class Trials:
    """Q queries that were re-ranked with every candidate.

    Attributes:
        margins: (Q,) float64 of the first stage, see `first_margin`.
        first: (1 + B, Q) int64, the first answer as a row of the outcome's matches: without re-ranking, and
            with each of `BLENDS`.
        right: (1 + B, Q) bool, whether it is right.
        matched: (Q,) int64, how many candidates were matched.
        places: (Q,) int64, which queries are of one place.
    """

    margins: Floats
    first: Rows
    right: Rights
    matched: Rows
    places: Rows

    def __len__(self) -> int:
        return len(self.margins)

    @classmethod
    def of(cls, outcomes: Sequence[QueryOutcome], *, hits: int) -> Trials:
        """Return what the outcomes say; left out are queries without answers, and without any right one.

        Args:
            outcomes: Of the labelled queries.
            hits: How many of the most similar candidates are re-ranked.
        """
        answered = [outcome for outcome in outcomes if outcome.matches and outcome.positives]
        tried = [_tried(outcome, hits) for outcome in answered]
        first = np.array([rows for _, rows, _ in tried], np.int64).reshape(-1, 1 + len(BLENDS)).T
        right = [
            [outcome.right[row] for row in rows]
            for outcome, (_, rows, _) in zip(answered, tried, strict=True)
        ]
        return cls(
            margins=np.array([margin for margin, _, _ in tried], np.float64),
            first=first,
            right=np.array(right, np.bool_).reshape(-1, 1 + len(BLENDS)).T,
            matched=np.array([matched for _, _, matched in tried], np.int64),
            places=np.array([outcome.cluster for outcome in answered], np.int64),
        )

    @property
    def before(self) -> Rights:
        """(Q,) bool, whether the first answer is right without re-ranking."""
        return np.asarray(self.right[0])

    def after(self, blend: float) -> Rights:
        """Return (Q,) bool, whether it is right with one of `BLENDS`."""
        return np.asarray(self.right[1 + BLENDS.index(blend)])

    def take(self, rows: Rows | Rights) -> Trials:
        """Return the selected queries."""
        return Trials(
            self.margins[rows],
            self.first[:, rows],
            self.right[:, rows],
            self.matched[rows],
            self.places[rows],
        )

    def left(self, rule: RerankRule) -> Rights:
        """Return (Q,) bool, which queries a rule leaves as they are."""
        return np.array([rule.leaves(margin) for margin in self.margins.tolist()], np.bool_)

    def chosen(self, rule: RerankRule) -> Rows:
        """Return (Q,) int64, which row of `first` and `right` each query is answered by."""
        return np.where(self.left(rule), 0, 1 + BLENDS.index(rule.blend))

    def right_by(self, rule: RerankRule) -> Rights:
        """Return (Q,) bool, whether the first answer is right by a rule with one of `BLENDS`."""
        return np.asarray(self.right[self.chosen(rule), np.arange(len(self))])


def _tried(outcome: QueryOutcome, hits: int) -> tuple[float, list[int], int]:
    """Return the margin, the first answers as rows of the matches, and how many candidates were matched."""
    similar = outcome.by_similarity()[:hits]
    matches = [outcome.matches[row] for row in similar]
    margin = first_margin([Candidate(match.record, match.similarity) for match in matches])  # type: ignore[arg-type]
    scored = [row for row in similar if outcome.matches[row].score is not None]
    if not scored:  # features that could not be read: the answer is as it is
        return margin, [similar[0], *[0] * len(BLENDS)], 0
    scores = np.array([outcome.matches[row].score for row in scored], np.float64)
    similarity = np.array([outcome.matches[row].similarity for row in scored])
    best = [scored[int(np.argmax(blended(scores, similarity, blend)))] for blend in BLENDS]
    return margin, [similar[0], *best], len(scored)
