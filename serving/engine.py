"""One query from image bytes to ranked places, without Ray and without HTTP.

The command line, the evaluation and every service use this one class, so that they all give the same answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.extractor import Extractor
from models.images.decoder import decode_image
from models.matching.binary import matched_hamming_pairs, mutual_hamming_count
from models.matching.mutual import matched_pairs, mutual_nn_count
from models.matching.precision import MatchingPrecision
from models.runtime.execution import AS_USUAL, Execution
from models.weights import load_extractor
from serving.answer import PlaceRecord, QueryResult, rank
from serving.reranking import ALL_EXACTLY, Matching, match_in_turn
from storage.card import Card
from storage.features.encodings import FeatureCodec
from storage.records import ImageRecord
from storage.search.searchers import Method
from storage.store import Store

__all__ = ["QueryEngine", "cell_centres", "count_matches", "line_points"]


class QueryEngine:
    """Answers queries from one store with the model that made it.

    Args:
        store: An open store; `store.refresh()` between queries makes newer commits visible.
        extractor: The model; its card must equal the store's.
        method: How the nearest descriptors are found, see `storage.search.searchers`.
        matching: How the candidates are matched, see `serving.reranking`.

    Raises:
        CardMismatch: the store was made by another model.
    """

    def __init__(
        self,
        store: Store,
        extractor: Extractor,
        *,
        method: Method = "exact",
        matching: Matching = ALL_EXACTLY,
    ) -> None:
        store.card.require_model(extractor.card)
        self.store = store
        self.extractor = extractor
        self.method: Method = method
        self.matching = matching

    @classmethod
    def open(
        cls,
        store_uri: str,
        *,
        model: str | None = None,
        method: Method = "exact",
        matching: Matching = ALL_EXACTLY,
        execution: Execution = AS_USUAL,
    ) -> QueryEngine:
        """Open a store and load the model that made it, at the store's input size.

        Args:
            store_uri: The store.
            model: Name or weights file; by default the name on the store's card.
            method: See `QueryEngine`.
            matching: See `QueryEngine`.
            execution: How to run the model.

        Raises:
            StoreError: the store cannot be opened, or was made by another model.
            UnknownModel, WeightsRejected, WeightsUnavailable: the model cannot be loaded.
        """
        store = Store.open(store_uri)
        size = store.card.preprocessing
        extractor = load_extractor(
            model or store.card.model, image_size=(size.height, size.width), execution=execution
        )
        return cls(store, extractor, method=method, matching=matching)

    def answer(
        self,
        image: bytes,
        *,
        top_k: int = 5,
        candidates: int = 100,
        rerank: bool = True,
        least: int | None = None,
    ) -> QueryResult:
        """Rank the places where a photo may have been taken.

        Args:
            image: An encoded JPEG, PNG or WebP.
            top_k: Number of places wanted.
            candidates: Number of global-descriptor hits that are re-ranked by counting mutual nearest
                neighbours between local features (SelaVPR, section 3.3).
            rerank: False keeps the order of the global descriptors.
            least: Candidates matched before an early stop; by default `top_k`, and never below 20.

        Returns:
            At most `top_k` matches, best first. Without re-ranking their order is by similarity; with it by
            mutual matches, ties by similarity. Candidates that were left out follow those matched.

        Raises:
            ImageRejected: the image cannot be used; it carries the reason.
            ModelFault: the model gave numbers that are not finite.
            CannotCompile: compiling was asked for and is not possible here.
            ValueError: `top_k` or `candidates` below 1.
            StoreError: the store cannot be read.
        """
        if top_k < 1 or candidates < 1:
            raise ValueError(f"top_k {top_k} and candidates {candidates} must be at least 1")
        timings: dict[str, float] = dict.fromkeys(("decode", "extract", "search", "fetch", "rerank"), 0.0)
        started = time.perf_counter()
        with _timed(timings, "decode"):
            pixels = decode_image(image).pixels
        with _timed(timings, "extract"):
            descriptors, features = self.extractor.extract([pixels])
        view = self.store.view  # the store may move on meanwhile; this answer does not
        with _timed(timings, "search"):
            hits = view.search(descriptors, k=max(top_k, candidates if rerank else 0), method=self.method)[0]
        counts: list[int | None] = []
        if rerank and hits:
            records = [hit.record for hit in hits[:candidates]]
            counts = self._match(features[0], records, timings, least=least or top_k)
        timings["total"] = (time.perf_counter() - started) * 1e3
        return QueryResult(
            model=self.store.card.model,
            store_version=view.version,
            # A corrupt row or unreadable features: the rest of the answer is right, and it says so.
            degraded=view.degraded or None in counts,
            matches=rank(hits, counts)[:top_k],
            timings_ms=timings,
            reranked=len(counts) if self.matching.partial else None,
        )

    def _match(
        self,
        features: NDArray[np.float32],
        records: Sequence[ImageRecord],
        timings: dict[str, float],
        *,
        least: int,
    ) -> list[int | None]:
        def match(some: Sequence[ImageRecord]) -> list[int | None]:
            with _timed(timings, "fetch"):
                stored, ok = self.store.fetch(some)
            with _timed(timings, "rerank"):
                return count_matches(
                    features,
                    stored,
                    ok,
                    self.store.card,
                    codec=self.store.codec,
                    precision=self.matching.precision,
                )

        return match_in_turn(records, match, self.matching, least=least)

    def matched_points(
        self, image: bytes, record: ImageRecord | PlaceRecord
    ) -> tuple[NDArray[np.float32], ...]:
        """Locate the mutual nearest neighbours of a photo and a stored image, for lines between them.

        Args:
            image: An encoded JPEG, PNG or WebP.
            record: The stored image of a match; one of an answer rebuilt from JSON is looked up by its id.

        Returns:
            Three arrays: points in the photo and points in the stored image, each (M, 2) float32 as (x, y) in
            0..1 of the upright image's width and height, and (M,) float32 cosine similarities. All empty
            where the stored features cannot be read.

        Raises:
            ImageRejected: the photo cannot be used.
            KeyError: the store holds no image of this id.
        """
        if isinstance(record, PlaceRecord):
            stored_records = self.store.get([record.image_id])
            if not stored_records:
                raise KeyError(
                    f"{self.store.uri} holds no image {record.image_id!r}: open the store it is from"
                )
            record = stored_records[0]
        _, features = self.extractor.extract([decode_image(image).pixels])
        stored, ok = self.store.fetch([record])
        found = stored[0] if ok[0] else None
        return line_points(features[0], found, self.store.card, codec=self.store.codec)


def cell_centres(card: Card) -> NDArray[np.float32]:
    """Return where the local features look: (H*W, 2) float32, (x, y) in 0..1 of the image.

    A grid that divides the input evenly has its cells side by side. SelaVPR's up-convolutions (kernel 3,
    stride 2, padding 1, twice) put four steps between patch centres instead: n patches give 4n - 3 cells.
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
        card: What made them.
        codec: The store's.
        device: Where to count.
        precision: As of `mutual_nn_count`; signs are always counted exactly.

    Returns:
        K counts; None where `ok` is False.
    """
    # A copy: what came from another process is read-only.
    query = torch.tensor(codec.query(features), device=device)
    others = torch.from_numpy(stored).to(device)
    if codec.binary:
        counted = mutual_hamming_count(query, others, bits=codec.channels, min_similarity=card.min_similarity)
    else:
        counted = mutual_nn_count(query, others, min_similarity=card.min_similarity, precision=precision)
    return [count if usable else None for count, usable in zip(counted.tolist(), ok.tolist(), strict=True)]


def line_points(
    features: NDArray[np.float32], stored: NDArray[Any] | None, card: Card, *, codec: FeatureCodec
) -> tuple[NDArray[np.float32], ...]:
    """Locate the mutual nearest neighbours of a photo and a stored image.

    Args:
        features: (H, W, C) float32 of the photo.
        stored: The stored image as `codec.decode` returns it, without the first axis; None where it cannot be
            read.
        card: What made them.
        codec: The store's.

    Returns:
        As `QueryEngine.matched_points`.
    """
    centres = cell_centres(card)
    if stored is None:
        return centres[:0], centres[:0], np.empty(0, np.float32)
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
    return centres[pairs[:, 0]], centres[pairs[:, 1]], similarity


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    timings[stage] += (time.perf_counter() - started) * 1e3
