"""How the candidates of a query are matched: how precisely, and how many of them.

Left as it is, every candidate is matched exactly. Each of the three options trades some of that for time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.matching.adaptive import StopRule, rank_adaptively
from models.matching.precision import MatchingPrecision
from storage.errors import PlacerayError
from storage.records import ImageRecord

__all__ = ["ALL_EXACTLY", "OPTIONS", "BadMatching", "Matching", "match_in_turn", "matching_of"]

# Measured (benchmarks/README.md, Matching): half of a city's candidates are left out and no first answer
# changes. Where neighbouring photos look alike nobody leads, and all are matched.
LEAD = 5.0
BLOCK = 10
MIN_CANDIDATES = 20


class BadMatching(PlacerayError, ValueError):
    """An option of matching is unknown or out of bounds."""

    reason = "bad_matching"


@dataclass(frozen=True, kw_only=True)
class Matching:
    """The options of matching.

    Attributes:
        precision: As of `models.matching.mutual.mutual_nn_count`; "fast" rounds large maps of features.
        stop_early: Leave out the remaining candidates once one stands far above the others.
        budget_ms: Milliseconds after which no further block of candidates is fetched and matched; the first
            block always is. None for no limit.

    Raises:
        BadMatching: a value is unknown or out of bounds.
    """

    precision: MatchingPrecision = "exact"
    stop_early: bool = False
    budget_ms: float | None = None

    def __post_init__(self) -> None:
        if self.precision not in ("exact", "fast"):
            raise BadMatching(f'matching is {self.precision!r}: choose "exact" or "fast"')
        if self.budget_ms is not None and not (math.isfinite(self.budget_ms) and self.budget_ms >= 0):
            raise BadMatching(f"the budget is {self.budget_ms} ms: give a number from 0 up, or none")

    @property
    def partial(self) -> bool:
        """Whether candidates may be left out."""
        return self.stop_early or self.budget_ms is not None

    def __str__(self) -> str:
        """The options in force, such as `fast, stopping early, 50 ms a query`; empty for none."""
        said = ["fast"] if self.precision == "fast" else []
        said += ["stopping early"] if self.stop_early else []
        said += [f"{self.budget_ms:g} ms a query"] if self.budget_ms is not None else []
        return ", ".join(said)


ALL_EXACTLY = Matching()
# What flags and settings call its attributes.
OPTIONS = {"matching": "precision", "stop_early": "stop_early", "rerank_budget_ms": "budget_ms"}


def matching_of(options: Mapping[str, Any]) -> Matching:
    """Make it of the names that flags and settings have; those not among the options keep their defaults.

    Raises:
        BadMatching: a value is unknown or out of bounds.
    """
    return Matching(**{name: options[option] for option, name in OPTIONS.items() if option in options})


def match_in_turn(
    records: Sequence[ImageRecord],
    match: Callable[[Sequence[ImageRecord]], list[int | None]],
    matching: Matching,
    *,
    min_candidates: int,
) -> list[int | None]:
    """Match candidates, all at once or block by block until the options end it.

    Args:
        records: K candidates, most similar first.
        match: Fetches and counts some of them; None for one whose features cannot be read.
        matching: The options.
        min_candidates: Candidates that are matched before a lead may end it, never below 20.

    Returns:
        Counts of the first candidates; those beyond were left out.
    """
    if not matching.partial:
        return match(records)
    rule = StopRule(
        block=BLOCK,
        least=max(MIN_CANDIDATES, min_candidates),
        lead=LEAD if matching.stop_early else None,
        budget_s=None if matching.budget_ms is None else matching.budget_ms / 1e3,
    )
    in_order = range(len(records), 0, -1)  # stands for the similarities
    ranking = rank_adaptively(in_order, lambda block: match([records[i] for i in block]), rule)
    return list(ranking.counts[: ranking.matched])
