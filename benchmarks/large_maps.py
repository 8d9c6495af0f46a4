"""Local features of the large model's shape: 61 x 61 cells of 128 channels."""

from __future__ import annotations

import dataclasses

import numpy as np

from storage.card import Card

__all__ = ["LARGE_CHANNELS", "LARGE_GRID", "large_card", "smooth_images"]

LARGE_GRID, LARGE_CHANNELS = 61, 128


def large_card(card: Card) -> Card:
    """Return a card with the large model's shape, on which every mutual neighbour counts, as with SelaVPR."""
    return dataclasses.replace(
        card,
        grid_height=LARGE_GRID,
        grid_width=LARGE_GRID,
        feature_dim=LARGE_CHANNELS,
        min_similarity=None,
    )


def smooth_images(count: int, generator: np.random.Generator) -> np.ndarray:
    """Return (count, 61, 61, 128) float32 of unit norm: noise of falling variance by channel, blurred.

    Standard deviation 1 / sqrt(1 + channel / 16), in a random basis, so that channels are alike and
    correlated; each cell is a blur of 5 x 5 neighbours plus a third of its own noise, as neighbouring cells
    see much of the same.
    """
    size, width = LARGE_GRID, LARGE_CHANNELS
    spread = 1 / np.sqrt(1 + np.arange(width) / 16)
    basis, _ = np.linalg.qr(np.random.default_rng(7).standard_normal((width, width)))
    own = generator.standard_normal((count, size + 4, size + 4, width), dtype=np.float32) * spread
    blurred = sum(own[:, y : y + size, x : x + size] for y in range(5) for x in range(5)) / 5
    cells = ((blurred + own[:, 2:-2, 2:-2] / 3) @ basis).astype(np.float32)
    return np.asarray(cells / np.linalg.norm(cells, axis=-1, keepdims=True))
