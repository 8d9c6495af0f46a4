"""Which encoding of local features keeps recall, by encoding full features of the candidates."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from models.feature_encoder import FeatureEncoder
from pipelines.evaluation.database_photos import DatabasePhotos
from pipelines.evaluation.full_features import FullFeatures
from pipelines.tuning.trials import Option, TrialPhotos
from serving.answer import rank
from serving.counting import CandidateMatcher
from serving.engine import QueryEngine
from storage.card import FeatureEncoding
from storage.features.encodings import FeatureCodec

__all__ = ["compare_encodings"]

# Those with a projection are learned while indexing, so that they cannot be tried here.
_TRIED: tuple[FeatureEncoding, ...] = ("float16", "int8", "int4", "int2", "binary")
_PHOTOS, _CANDIDATES = 60, 50


def compare_encodings(
    engine: QueryEngine, photos: TrialPhotos, option: Option, database: DatabasePhotos | None = None
) -> list[dict[str, Any]]:
    """Measure recall and bytes of the encodings that need no learning, on photos of the database.

    Returns:
        `features`, `bytes_per_image` and `recall` in percent of each; empty where photos of the database are
        gone, as full features are extracted from these, and where the store has no local features.
    """
    if not engine.store.card.has_features:
        return []
    full = FullFeatures(engine, database)
    count = min(_PHOTOS, len(photos))
    hits = engine.store.snapshot.search(
        photos.descriptors[:count], k=min(option.candidates, _CANDIDATES), method="exact"
    )
    fetched = [full.fetch([hit.record for hit in found]) for found in hits]
    if not all(ok.all() for _, ok in fetched):
        return []
    results = []
    for encoding in _TRIED:
        card = dataclasses.replace(full.card, feature_encoding=encoding)
        codec = FeatureCodec(card)
        encoder = FeatureEncoder(codec)
        right = 0
        for row, (found, (features, ok)) in enumerate(zip(hits, fetched, strict=True)):
            stored = codec.decode(encoder.encode(features.astype(np.float32)))
            matcher = CandidateMatcher(
                photos.features[row].astype(np.float32), card, codec=codec, matching=option.matching
            )
            matches = rank(found, matcher.match(stored, ok), matcher.scores(), matcher.kind)
            right += bool(matches) and matches[0].record.image_id in photos.positives[row]
        results.append(
            {
                "features": encoding,
                "bytes_per_image": codec.row_bytes,
                "recall": round(100.0 * right / count, 2),
            }
        )
    return results
