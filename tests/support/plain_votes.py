"""Votes of matches as their definition says, with loops: what `models.matching.votes` is compared with."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
from numpy.typing import NDArray

__all__ = ["plain_votes"]


def plain_votes(
    partner: NDArray[np.integer],
    similarity: NDArray[np.floating],
    grid: tuple[int, int],
    other_grid: tuple[int, int] | None = None,
) -> list[float]:
    """Return one score per candidate, by the formula in the docstring of `models.matching.votes`."""
    steps = np.rint(np.clip(similarity.astype(np.float32), -8, 8) * np.float32(2000)).astype(int)
    scores = []
    for place, (row, reached) in enumerate(zip(partner, steps, strict=True)):
        matches = []
        for cell, other in enumerate(row):
            if other >= 0:
                first = steps[:12, cell].tolist()
                mean = rounded(Fraction(sum(first), len(first)))
                above = int(reached[cell]) - mean
                if place >= 12:
                    above = rounded(Fraction(11 * above, 12))
                relative = Fraction(min(max(above, 0), 600), 600)
                absolute = Fraction(min(max(int(reached[cell]) - 1000, 0), 400), 400)
                weight = int(1600 * (relative * 3 / 4 + absolute / 4))
                matches.append((*displacement(cell, int(other), grid, other_grid or grid), weight))
        total = sum(weight for *_, weight in matches)
        squares = largest_square(matches, 5) + largest_square(matches, 9)
        scores.append((squares + 3 * total) / (5 * 1600))
    return scores


def rounded(value: Fraction) -> int:
    return floor(value + Fraction(1, 2))


def displacement(
    cell: int, other: int, grid: tuple[int, int], other_grid: tuple[int, int]
) -> tuple[int, int]:
    here, there = divmod(cell, grid[1]), divmod(other, other_grid[1])
    parts = []
    for axis in (0, 1):
        # Cell centres in 1 / 64 of a fourteenth of the side.
        start, end = (
            rounded(Fraction((2 * at + 1) * 14 * 64, 2 * size))
            for at, size in ((here[axis], grid[axis]), (there[axis], other_grid[axis]))
        )
        parts.append(rounded(Fraction(end - start, 64)))
    return parts[0], parts[1]


def largest_square(matches: list[tuple[int, int, int]], width: int) -> int:
    best = 0
    for top in {y for y, _, _ in matches}:
        for left in {x for _, x, _ in matches}:
            inside = [w for y, x, w in matches if top <= y < top + width and left <= x < left + width]
            best = max(best, sum(inside))
    return best
