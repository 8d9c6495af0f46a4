"""Matches a photo with encoded features: counts of mutual nearest neighbours, and scores to rank by."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.matching.binary import mutual_hamming_count, mutual_hamming_neighbours
from models.matching.mutual import mutual_neighbours, mutual_nn_count
from models.matching.precision import MatchingPrecision
from models.matching.votes import BASELINE_CANDIDATES, vote_scores
from serving.matching_options import ALL_EXACTLY, Matching
from storage.card import Card
from storage.features.encodings import FeatureCodec

__all__ = ["CandidateMatcher", "count_matches"]


class CandidateMatcher:
    """Matches the candidates of one photo, all at once or in blocks, and scores them.

    Args:
        features: (H, W, C) float32 of the photo, unit L2 norm per cell.
        card: Of the store.
        codec: Of the store.
        device: Where to match.
        matching: How.
        stored: Whether `features` are those of a stored photo, as `codec.decode` returns them.

    Attributes:
        kind: What the scores are.
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        card: Card,
        *,
        codec: FeatureCodec,
        device: torch.device | str = "cpu",
        matching: Matching = ALL_EXACTLY,
        stored: bool = False,
    ) -> None:
        self.kind = matching.score_of(card)
        self._query = features if stored else codec.query(features)
        self._card = card
        self._codec = codec
        self._device = device
        self._precision = matching.precision
        self._counts: list[int | None] = []
        self._neighbours: list[tuple[torch.Tensor, torch.Tensor]] = []  # of readable candidates, for votes
        self._grid = (card.grid_height, card.grid_width)

    def match(self, stored: NDArray[Any], ok: NDArray[np.bool_]) -> list[int | None]:
        """Match the next candidates, most similar photos first.

        Args:
            stored: K candidates as `codec.decode` returns them.
            ok: (K,) bool, False where the candidate's features could not be read.

        Returns:
            K counts of mutual nearest neighbours; None where `ok` is False.
        """
        if self.kind == "count":
            counts = _count(self._query, stored, ok, self._card, self._codec, self._device, self._precision)
        else:
            counts = self._match_to_vote(stored, ok)
        self._counts.extend(counts)
        return counts

    def scores(self) -> list[float | None]:
        """Return the scores of all candidates so far; None where features could not be read."""
        if self.kind == "count" or not self._neighbours:
            return [None if count is None else float(count) for count in self._counts]
        partner, similarity = (torch.cat(parts) for parts in zip(*self._neighbours, strict=True))
        scores = iter(vote_scores(partner, similarity, self._grid).tolist())
        return [None if count is None else next(scores) for count in self._counts]

    def _match_to_vote(self, stored: NDArray[Any], ok: NDArray[np.bool_]) -> list[int | None]:
        if not ok.any():
            return [None] * len(ok)
        readable = stored if ok.all() else stored[ok]
        query = torch.tensor(self._query, device=self._device)
        others = torch.from_numpy(readable).to(self._device)
        if self._codec.binary:
            partner, similarity = mutual_hamming_neighbours(query, others, bits=self._codec.channels)
        else:
            partner, similarity = mutual_neighbours(
                query,
                others,
                precision=self._precision,
                score=self._score_block,
                exact_first=BASELINE_CANDIDATES - sum(len(block) for block, _ in self._neighbours),
            )
        self._neighbours.append((partner, similarity))
        mutual = partner >= 0
        if self._card.min_similarity is not None:
            mutual &= similarity >= self._card.min_similarity
        counts = iter(mutual.sum(dim=1).tolist())
        return [next(counts) if usable else None for usable in ok.tolist()]

    def _score_block(self, partner: torch.Tensor, similarity: torch.Tensor) -> torch.Tensor:
        """Score candidates beside the first ones so far, which decide how much each cell says."""
        blocks = [*self._neighbours, (partner, similarity)]
        partners, similarities = (torch.cat(parts) for parts in zip(*blocks, strict=True))
        return vote_scores(partners, similarities, self._grid)[-len(partner) :]


def count_matches(
    features: NDArray[np.float32],
    stored: NDArray[Any],
    ok: NDArray[np.bool_],
    card: Card,
    *,
    codec: FeatureCodec,
    device: torch.device | str = "cpu",
    precision: MatchingPrecision = "exact",
) -> list[int | None]:
    """Count the mutual nearest neighbours of a photo and each candidate (SelaVPR, section 3.3).

    Args:
        features: (H, W, C) float32 of the photo, unit L2 norm per cell.
        stored: K candidates as `codec.decode` returns them.
        ok: (K,) bool, False where the candidate's features could not be read.
        card: Of the store.
        codec: Of the store.
        device: Where to count.
        precision: As of `mutual_nn_count`; signs are always counted exactly.

    Returns:
        K counts; None where `ok` is False.
    """
    return _count(codec.query(features), stored, ok, card, codec, device, precision)


def _count(
    query: NDArray[Any],
    stored: NDArray[Any],
    ok: NDArray[np.bool_],
    card: Card,
    codec: FeatureCodec,
    device: torch.device | str,
    precision: MatchingPrecision,
) -> list[int | None]:
    # A copy: arrays from another process are read-only.
    asked = torch.tensor(query, device=device)
    others = torch.from_numpy(stored).to(device)
    if codec.binary:
        counts = mutual_hamming_count(asked, others, bits=codec.channels, min_similarity=card.min_similarity)
    else:
        counts = mutual_nn_count(asked, others, min_similarity=card.min_similarity, precision=precision)
    return [count if usable else None for count, usable in zip(counts.tolist(), ok.tolist(), strict=True)]
