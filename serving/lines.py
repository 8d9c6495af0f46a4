"""Positions of matched local features in two images, to draw lines between them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from models.matching.binary import matched_hamming_pairs
from models.matching.mutual import matched_pairs
from models.matching.votes import agreeing_pairs
from serving.matching_options import ScoreKind
from storage.card import Card
from storage.features.encodings import FeatureCodec

__all__ = ["MatchedLines", "cell_centres", "line_points"]


class MatchedLines(NamedTuple):
    """The mutual nearest neighbours of a photo and a stored image, as lines from one to the other.

    Attributes:
        points: (M, 2) float32, (x, y) in the photo, in 0..1 of the upright image's width and height.
        stored_points: (M, 2) float32, likewise in the stored image.
        similarity: (M,) float32 cosine similarities.
        agree: (M,) bool, whether a match is one of those that agree on a displacement, see
            `models.matching.votes`; all True where candidates are ranked by the count.
    """

    points: NDArray[np.float32]
    stored_points: NDArray[np.float32]
    similarity: NDArray[np.float32]
    agree: NDArray[np.bool_]


def cell_centres(card: Card) -> NDArray[np.float32]:
    """Return the centres of the local features: (H*W, 2) float32, (x, y) in 0..1 of the image.

    Where the grid divides the input evenly, its cells lie side by side. SelaVPR's up-convolutions (kernel 3,
    stride 2, padding 1, twice) give four steps between patch centres instead: n patches give 4n - 3 cells.
    """
    axes = []
    for cells, size_px in (
        (card.grid_width, card.preprocessing.width),
        (card.grid_height, card.preprocessing.height),
    ):
        patches, step = (cells, 1) if size_px % cells == 0 else ((cells + 3) // 4, 4)
        axes.append((np.arange(cells) / step + 0.5) / patches)
    x, y = np.meshgrid(*axes)
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def line_points(
    features: NDArray[np.float32],
    stored: NDArray[Any] | None,
    card: Card,
    *,
    codec: FeatureCodec,
    kind: ScoreKind = "count",
) -> MatchedLines:
    """Locate the mutual nearest neighbours of a photo and a stored image.

    Args:
        features: (H, W, C) float32 of the photo.
        stored: The stored image as `codec.decode` returns it, without the first axis; None where it cannot be
            read.
        card: Of the store.
        codec: Of the store.
        kind: What candidates are ranked by.

    Returns:
        The lines; none where `stored` is None.
    """
    centres = cell_centres(card)
    if stored is None:
        return MatchedLines(centres[:0], centres[:0], np.empty(0, np.float32), np.empty(0, np.bool_))
    query = codec.query(features)
    if codec.binary:
        pairs, similarity = matched_hamming_pairs(
            torch.from_numpy(query),
            torch.from_numpy(stored),
            bits=codec.channels,
            min_similarity=card.min_similarity,
        )
    else:
        pairs, similarity = matched_pairs(query, stored, min_similarity=card.min_similarity)
    agree = np.ones(len(pairs), np.bool_)
    if kind == "votes":
        agree = agreeing_pairs(pairs, similarity, (card.grid_height, card.grid_width))
    return MatchedLines(centres[pairs[:, 0]], centres[pairs[:, 1]], similarity, agree)
