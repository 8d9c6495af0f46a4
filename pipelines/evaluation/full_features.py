"""An engine that matches with full features, extracted from the photos, instead of those that are stored."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.images import ImageRejected, decode_image
from pipelines.evaluation.database_photos import DatabasePhotos
from serving.counting import CandidateMatcher
from serving.engine import QueryEngine
from serving.query import Query
from storage.features.encodings import FeatureCodec
from storage.records import ImageRecord

__all__ = ["FullFeatures", "FullFeaturesEngine"]

_CACHE_BYTES = 1 << 30
_BATCH = 8


class FullFeatures:
    """Local features of stored photos as the model gives them, extracted from the files; a bounded cache.

    Args:
        engine: Its model is used.
        photos: Where the photos lie now; default: where they were indexed from.

    Attributes:
        card: Of features that are kept as they are.
        codec: For these.
    """

    def __init__(self, engine: QueryEngine, photos: DatabasePhotos | None = None) -> None:
        self._photos = photos or DatabasePhotos()
        self.card = dataclasses.replace(
            engine.store.card, feature_encoding="float16", projection_sha256=None, local_whitening_sha256=None
        )
        self.codec = FeatureCodec(self.card)
        self._engine = engine
        shape = (self.card.grid_height, self.card.grid_width, self.card.feature_dim)
        self._shape = shape
        self._kept_photos = max(256, _CACHE_BYTES // (2 * int(np.prod(shape))))
        self._kept: OrderedDict[str, NDArray[np.float16] | None] = OrderedDict()

    def fetch(self, records: Sequence[ImageRecord]) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
        """Return (K, H, W, C) float16 features and (K,) which of them there are, as `Store.fetch`."""
        missing = [record for record in records if record.image_id not in self._kept]
        for first in range(0, len(missing), _BATCH):
            self._extract(missing[first : first + _BATCH])
        found = [self._kept[record.image_id] for record in records]
        for record in records:
            self._kept.move_to_end(record.image_id)
        while len(self._kept) > self._kept_photos:
            self._kept.popitem(last=False)
        ok = np.array([one is not None for one in found], np.bool_)
        blank = np.zeros(self._shape, np.float16)
        stacked = np.stack([blank if one is None else one for one in found]) if found else blank[None][:0]
        return stacked, ok

    def readable(self, records: Sequence[ImageRecord]) -> bool:
        """Return whether the photos of all these records are there."""
        return bool(self.fetch(records)[1].all())

    def _extract(self, records: Sequence[ImageRecord]) -> None:
        photos: list[Any] = []
        for record in records:
            try:
                data = self._photos.read(record)
                photos.append(decode_image(data, max_pixels=self._engine.max_pixels).pixels)
            except ImageRejected:
                photos.append(None)
        usable = [pixels for pixels in photos if pixels is not None]
        features = iter(self._engine.extractor.extract(usable)[1].astype(np.float16)) if usable else iter(())
        for record, pixels in zip(records, photos, strict=True):
            self._kept[record.image_id] = None if pixels is None else next(features)


class FullFeaturesEngine(QueryEngine):
    """Answers as `QueryEngine` with exact search, and matches every candidate exactly with full features.

    Attributes:
        identity: Tells its answers from those of an engine that matches with stored features.
    """

    identity = "full features"

    def __init__(self, engine: QueryEngine, features: FullFeatures) -> None:
        """Answer from the store of an engine, with its model."""
        super().__init__(engine.store, engine.extractor, method="exact")
        self.max_pixels = engine.max_pixels
        self.matching = dataclasses.replace(self.matching, score=engine.matching.score)
        self._full = features

    def _match(self, query: Query, features: NDArray[np.float32], records: Sequence[ImageRecord]) -> None:
        if not records:
            return
        matcher = CandidateMatcher(features, self._full.card, codec=self._full.codec, matching=self.matching)
        count: Callable[..., list[int | None]] = matcher.match
        with query.timed("fetch"):
            stored, ok = self._full.fetch(records)
        with query.timed("rerank"):
            counts = count(stored, ok)
            scores = matcher.scores()
        query.counted(counts, scores, matcher.kind)
