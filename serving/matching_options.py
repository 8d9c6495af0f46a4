"""Options of matching: how precisely candidates are matched, and how many of them.

By default every candidate is matched exactly. `matching`, `stop_early` and the budget trade some accuracy for
time; `score` chooses what candidates are ranked by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from models.matching.precision import MatchingPrecision
from models.names import DEFAULT_MODEL
from serving.defaults import CANDIDATES, LEARNED_CANDIDATES
from storage.card import Card
from storage.errors import PlacerayError

__all__ = [
    "ALL_EXACTLY",
    "OPTIONS",
    "BadMatching",
    "Matching",
    "ScoreKind",
    "default_candidates",
    "default_score",
    "matching_of",
]

ScoreKind = Literal["votes", "count"]
"""What candidates are ranked by: votes on displacement (`models.matching.votes`), or the count of matches."""

_VOTES_FROM_FORMAT = 3  # answers from older stores stay as they were


class BadMatching(PlacerayError, ValueError):
    """An option of matching is unknown or out of bounds."""

    reason = "bad_matching"


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Options of matching; each field describes itself in its metadata.

    Whatever the budget, the first block of candidates is matched.

    Raises:
        BadMatching: a value is unknown or out of bounds.
    """

    precision: MatchingPrecision = field(
        default="exact",
        metadata={
            "help": "fast: approximate counts on large feature maps, the first result stays exact",
        },
    )
    stop_early: bool = field(
        default=False, metadata={"help": "skip candidates once one is far ahead of the others"}
    )
    score: ScoreKind | None = field(
        default=None,
        metadata={
            "help": "rank candidates by votes of matches on displacement, or by their count; default: votes "
            "for models without trained local features, count for the others and for stores made before "
            "version 0.2"
        },
    )
    budget_ms: float | None = field(
        default=None,
        metadata={
            "help": "skip candidates after this time per query; default: no limit",
            "ge": 0,
            "le": 3_600_000,
        },
    )

    def __post_init__(self) -> None:
        if self.precision not in ("exact", "fast"):
            raise BadMatching(f'matching is {self.precision!r}: choose "exact" or "fast"')
        if self.score is not None and self.score not in get_args(ScoreKind):
            raise BadMatching(f'score is {self.score!r}: choose "votes" or "count"')
        if self.budget_ms is not None and not (math.isfinite(self.budget_ms) and self.budget_ms >= 0):
            raise BadMatching(f"the budget is {self.budget_ms} ms: give a number from 0 up, or none")

    @property
    def partial(self) -> bool:
        """Whether candidates may be left out."""
        return self.stop_early or self.budget_ms is not None

    def score_of(self, card: Card) -> ScoreKind:
        """The score of a store: the one that was chosen, or the default of its card."""
        return self.score or default_score(card)

    def __str__(self) -> str:
        """The options in force, such as `fast, stopping early, 50 ms per query`; empty for none."""
        options = [f"ranked by {self.score}"] if self.score else []
        if self.precision == "fast":
            options.append("fast")
        if self.stop_early:
            options.append("stopping early")
        if self.budget_ms is not None:
            options.append(f"{self.budget_ms:g} ms per query")
        return ", ".join(options)


ALL_EXACTLY = Matching()
# Name of the flag and the setting -> name of the attribute.
OPTIONS = {
    "score": "score",
    "matching": "precision",
    "stop_early": "stop_early",
    "rerank_budget_ms": "budget_ms",
}


def default_score(card: Card) -> ScoreKind:
    """Return what a store's candidates are ranked by unless an option says otherwise.

    Trained local features, SelaVPR's and those of fine-tuned models, are trained for the count; fine-tuning
    compares both and notes the better one on the card.
    """
    if card.score is not None:
        return card.score
    untrained = card.model == DEFAULT_MODEL
    return "votes" if untrained and card.format_version >= _VOTES_FROM_FORMAT else "count"


def default_candidates(card: Card) -> int:
    """Return how many hits of a search in a store are re-ranked unless an option says otherwise."""
    return CANDIDATES if card.aggregation_sha256 is None else LEARNED_CANDIDATES


def matching_of(options: Mapping[str, Any]) -> Matching:
    """Build the options from flags or settings; those not given keep their defaults.

    Raises:
        BadMatching: a value is unknown or out of bounds.
    """
    return Matching(**{name: options[option] for option, name in OPTIONS.items() if option in options})
