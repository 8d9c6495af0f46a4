"""What votes cost beside counting, in turns: time, operations and bytes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from models.matching.mutual import mutual_neighbours, mutual_nn_count
from models.matching.votes import vote_scores

__all__ = ["vote_cost"]

REPEATS = 50


def vote_cost(query: torch.Tensor, candidates: torch.Tensor, rounds: int) -> dict[str, Any]:
    """Match and count, and match, count and vote.

    Args:
        query: (N, C) float32, N the square of a whole number.
        candidates: (K, N, C) float16.
        rounds: Of each.

    Returns:
        Votes per count as the median of ratios within a round, in wall time and in processor time; operations
        and bytes of votes beside those of the products. Per query cell and candidate a dozen operations give
        a weight and a displacement, of 8 bytes of input; per candidate 29 x 29 sums are filled, added for two
        widths and searched.
    """
    side = math.isqrt(len(query))

    def vote() -> torch.Tensor:
        partner, similarity = mutual_neighbours(query, candidates)
        (partner >= 0).sum(dim=1)  # the count, which answers have too
        return vote_scores(partner, similarity, (side, side))

    ways: dict[str, Callable[[], object]] = {
        "count": lambda: mutual_nn_count(query, candidates),
        "votes": vote,
    }
    partner, similarity = mutual_neighbours(query, candidates)
    started = time.perf_counter()
    for _ in range(REPEATS):
        vote_scores(partner, similarity, (side, side))
    alone_s = (time.perf_counter() - started) / REPEATS
    _, cells, channels = candidates.shape
    squares = 29 * 29
    row: dict[str, Any] = {
        "candidates": len(candidates),
        "cells": cells,
        "channels": channels,
        "rounds": rounds,
    }
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds + 1):
        for way, run in ways.items():
            before = time.perf_counter(), time.process_time()
            run()
            after = time.perf_counter(), time.process_time()
            for clock, start, end in zip(("wall", "cpu"), before, after, strict=True):
                times.setdefault((way, clock), []).append(end - start)
    for clock in ("wall", "cpu"):
        counts, votes = (times[way, clock][1:] for way in ("count", "votes"))  # the first warms up
        row[f"count_ms_{clock}"] = statistics.median(counts) * 1e3
        row[f"votes_ms_{clock}"] = statistics.median(votes) * 1e3
        ratios = [vote / one for vote, one in zip(votes, counts, strict=True)]
        row[f"votes_per_count_{clock}"] = statistics.median(ratios)
    return row | {
        "votes_alone_ms": alone_s * 1e3,
        "votes_mflop": (12 * cells + 16 * squares) / 1e6,
        "votes_mb": (8 * cells + 16 * 4 * squares) / 1e6,
        "product_mflop": 2 * cells * cells * channels / 1e6,
    }
