"""Matches the candidates of a query: all at once, or in blocks until an option stops it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from models.matching.adaptive import StopRule, match_in_blocks
from serving.matching_options import Matching
from storage.records import ImageRecord

__all__ = ["MIN_CANDIDATES", "match_in_turn"]

# Measured (benchmarks/README.md, Matching): half of a city's candidates are left out and no first answer
# changes. Where neighbouring photos look alike no candidate leads, and all are matched.
LEAD = 5.0
BLOCK = 10
MIN_CANDIDATES = 20


def match_in_turn(
    records: Sequence[ImageRecord],
    match: Callable[[Sequence[ImageRecord]], list[int | None]],
    matching: Matching,
    *,
    min_candidates: int,
) -> list[int | None]:
    """Match candidates, all at once or block by block until an option stops it.

    Args:
        records: K candidates, most similar first.
        match: Fetches and counts a block of them; None where features cannot be read.
        matching: The options.
        min_candidates: Candidates matched before an early stop, never below 20.

    Returns:
        Counts of the candidates that were matched, the first ones.
    """
    if not matching.partial:
        return match(records)
    rule = StopRule(
        block=BLOCK,
        min_candidates=max(MIN_CANDIDATES, min_candidates),
        lead=LEAD if matching.stop_early else None,
        budget_s=None if matching.budget_ms is None else matching.budget_ms / 1e3,
    )
    return match_in_blocks(len(records), lambda block: match(records[block.start : block.stop]), rule)
