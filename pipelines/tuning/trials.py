"""Trials of settings: photos are described once, then searched and matched under each setting."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.aggregation.describer import Describer
from models.images import ImageRejected
from models.images.photo import load_pixels
from pipelines.evaluation.ground_truth import Truth
from serving.answer import rank
from serving.counting import CandidateMatcher
from serving.defaults import TOP_K
from serving.engine import QueryEngine
from serving.matching_options import ALL_EXACTLY, Matching
from serving.reranking import match_in_turn
from storage.records import ImageRecord
from storage.search.methods import SearchMethod

__all__ = ["Option", "Trial", "TrialPhotos", "run_trial"]

_MIN_CANDIDATES = 20  # before an early stop


@dataclass(frozen=True)
class Option:
    """A setting of the service.

    Attributes:
        method: Search method.
        candidates: Hits that are re-ranked; 0 where the store has no local features.
        matching: Options of matching.
    """

    method: SearchMethod = "exact"
    candidates: int = 100
    matching: Matching = field(default=ALL_EXACTLY)

    def to_dict(self) -> dict[str, Any]:
        """Return the keys of `args:` in a Serve config file."""
        return {
            "method": self.method,
            "candidates": self.candidates or None,
            "score": self.matching.score,
            "matching": self.matching.precision,
            "stop_early": self.matching.stop_early,
        }


@dataclass(frozen=True, eq=False)
class Trial:
    """What one setting gives.

    Attributes:
        option: The setting.
        right: (Q,) which first answers are right.
        ms: (Q,) milliseconds of search, fetching and matching.
    """

    option: Option
    right: NDArray[np.bool_]
    ms: NDArray[np.float64]

    @property
    def recall(self) -> float:
        """Recall at 1 in percent."""
        return 100.0 * float(self.right.mean())


class TrialPhotos:
    """Labelled photos with their descriptors and features.

    Args:
        engine: Describes them, one by one as a service does.
        rows: Queries with `uri` and `rejected`.
        truth: Which images are right for them.
        limit: Photos that are used at most, evenly spaced.

    Attributes:
        descriptors: (Q, D) float32.
        codes: (Q, bits / 8) uint8; None where the model makes none.
        features: Q arrays (H, W, C) float16.
        positives: Keys of the right images, Q sets.
        clusters: (Q,) place of each.
        extract_ms: Median milliseconds of decoding and describing a photo.
    """

    def __init__(
        self, engine: QueryEngine, rows: Sequence[Mapping[str, Any]], truth: Truth, *, limit: int
    ) -> None:
        describer = Describer(engine.store.artifact, engine.store.codec)
        card = engine.store.card
        clusters = truth.clusters()
        usable = [row for row in range(len(rows)) if not rows[row]["rejected"]]
        chosen = [
            usable[i] for i in np.unique(np.linspace(0, len(usable) - 1, min(len(usable), limit)).astype(int))
        ]
        descriptors, codes, times, kept = [], [], [], []
        self.features: list[NDArray[np.float16]] = []
        for row in chosen:
            started = time.perf_counter()
            try:
                pixels = load_pixels(rows[row]["uri"], max_pixels=engine.max_pixels)
            except ImageRejected:
                continue
            own, features, code = engine.extractor.extraction([pixels])
            descriptors.append(describer.describe(card, own, features)[0])
            times.append((time.perf_counter() - started) * 1e3)
            self.features.append(features[0].astype(np.float16))
            kept.append(row)
            if code is not None:
                codes.append(code[0])
        self.descriptors = np.array(descriptors, np.float32).reshape(len(kept), -1)
        self.codes = np.array(codes, np.uint8) if codes else None
        self.positives = [truth.positives(row) for row in kept]
        self.clusters = clusters[kept]
        self.extract_ms = float(np.median(times)) if times else 0.0

    def __len__(self) -> int:
        return len(self.features)


def run_trial(engine: QueryEngine, photos: TrialPhotos, option: Option) -> Trial:
    """Answer all photos under a setting, one by one."""
    snapshot = engine.store.snapshot
    snapshot.load(option.method)
    right = np.zeros(len(photos), np.bool_)
    ms = np.zeros(len(photos))
    for row, features in enumerate(photos.features):
        started = time.perf_counter()
        hits = snapshot.search(
            photos.descriptors[row : row + 1],
            k=option.candidates or TOP_K,
            method=option.method,
            codes=None if photos.codes is None else photos.codes[row : row + 1],
        )[0]
        matcher = CandidateMatcher(
            features.astype(np.float32), engine.store.card, codec=engine.store.codec, matching=option.matching
        )

        def match(block: Sequence[ImageRecord], matcher: CandidateMatcher = matcher) -> list[int | None]:
            return matcher.match(*engine.store.fetch(block))

        records = [hit.record for hit in hits[: option.candidates]]
        counts = (
            match_in_turn(records, match, option.matching, min_candidates=_MIN_CANDIDATES) if records else []
        )
        matches = rank(hits, counts, matcher.scores(), matcher.kind)
        ms[row] = (time.perf_counter() - started) * 1e3
        right[row] = bool(matches) and matches[0].record.image_id in photos.positives[row]
    return Trial(option, right, ms)
