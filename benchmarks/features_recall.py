"""What encodings of local features cost in recall, bytes and time."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.dataset_features import Photos, extract_folder
from benchmarks.large_maps import LARGE_CHANNELS, LARGE_GRID, large_card
from benchmarks.learned_codec import learn_codec
from models.feature_encoder import FeatureEncoder
from models.weights import load_extractor
from pipelines.sources import Dataset
from serving.counting import count_matches
from storage.card import Card, FeatureEncoding
from storage.features.encodings import FeatureCodec

__all__ = ["measure_dense_recall", "measure_recall"]

CANDIDATES = 100
THRESHOLD_M = 25.0
DENSE_PX, DENSE_CANDIDATES = 992, 20  # 62 x 62 cells, of which 61 x 61 are taken
Figures = dict[str, Any]


def measure_recall(layout: Dataset, encodings: Sequence[FeatureEncoding]) -> Figures:
    """Search the database with the queries, and the queries with the database, for twice as many queries."""
    extractor = load_extractor("efficientnet-lite0", device="cpu")
    queries, database = (extract_folder(folder, extractor) for folder in (layout.queries, layout.database))
    return _both_directions(layout.name, queries, database, extractor.card, encodings, candidates=CANDIDATES)


def measure_dense_recall(layout: Dataset, encodings: Sequence[FeatureEncoding]) -> Figures:
    """Do the same with maps of the large model's shape, which the default model makes of enlarged photos.

    Their 112 channels are turned into 128 by a fixed matrix that changes no inner product. Every mutual
    neighbour counts, as with SelaVPR.
    """
    extractor = load_extractor("efficientnet-lite0", device="cpu")
    large = load_extractor("efficientnet-lite0", device="cpu", image_size=(DENSE_PX, DENSE_PX))
    width = extractor.card.feature_dim
    turn = np.linalg.qr(np.random.default_rng(7).standard_normal((LARGE_CHANNELS, width)))[0].T
    sides = []
    for folder in (layout.queries, layout.database):
        cells = extract_folder(folder, large).features[:, :LARGE_GRID, :LARGE_GRID] @ turn.astype(np.float32)
        sides.append(extract_folder(folder, extractor)._replace(features=cells))
    card = large_card(extractor.card)
    return _both_directions(f"{layout.name}, dense", *sides, card, encodings, candidates=DENSE_CANDIDATES)


def _both_directions(
    name: str,
    queries: Photos,
    database: Photos,
    card: Card,
    encodings: Sequence[FeatureEncoding],
    *,
    candidates: int,
) -> Figures:
    figures: Figures = {"candidates": candidates}
    hits: dict[str, list[np.ndarray]] = defaultdict(list)
    for direction, sides in (("forwards", (queries, database)), ("backwards", (database, queries))):
        compared, right = _compare(f"{name}, {direction}", *sides, card, encodings, candidates)
        figures[direction] = compared
        for encoding, hit in right.items():
            hits[encoding].append(hit)
    pooled = {encoding: np.concatenate(parts) for encoding, parts in hits.items()}
    figures["both"] = {
        encoding: {
            "queries": len(hit),
            "recall_1": round(100 * float(hit.mean()), 2),
            "lost": int((pooled["float16"] & ~hit).sum()),
            "gained": int((hit & ~pooled["float16"]).sum()),
        }
        for encoding, hit in pooled.items()
    }
    for encoding, row in figures["both"].items():
        print(f"{name}, both directions: {encoding:12} {row}", flush=True)
    return figures


def _compare(
    name: str,
    queries: Photos,
    database: Photos,
    card: Card,
    encodings: Sequence[FeatureEncoding],
    candidates: int,
) -> tuple[Figures, dict[str, np.ndarray]]:
    """Re-rank the same candidates with every encoding; return figures, and which queries each has right."""
    stored = database.features.astype(np.float16)
    # As the store does: descriptors in half precision, best first.
    similarity = queries.descriptors @ database.descriptors.astype(np.float16).astype(np.float32).T
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :candidates]
    distance = np.hypot(*(queries.points[:, None] - database.points[order]).transpose(2, 0, 1))
    right = distance <= THRESHOLD_M + 1e-6
    figures: Figures = {"queries": len(order), "database": len(stored)}
    figures["global"] = round(100 * float(right[:, 0].mean()), 2)
    exact: np.ndarray | None = None
    hits = {}
    for encoding in encodings:
        codec = learn_codec(card, encoding, stored)
        rows, encode_ms = _encode(codec, database.features)
        counts, times_ms = _rerank(codec, card, queries.features, rows, order)
        exact = counts if exact is None else exact
        first = np.argsort(-counts, axis=1, kind="stable")[:, 0]
        hits[encoding] = right[np.arange(len(right)), first]
        figures[encoding] = {
            "recall_1": round(100 * float(hits[encoding].mean()), 2),
            "bytes_image": codec.row_bytes,
            "encode_ms_image": round(encode_ms, 3),
            **{f"{part}_ms_100": round(100 / candidates * ms, 2) for part, ms in times_ms.items()},
            "count_error": round(float(np.abs(counts - exact).mean()), 3),
            "count_mean": round(float(exact.mean()), 2),
        }
        print(f"{name}: {encoding:12} {figures[encoding]}", flush=True)
    return figures, hits


def _encode(codec: FeatureCodec, features: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the encoded rows and the milliseconds per image; from float32 in batches, as the extractor."""
    encoder = FeatureEncoder(codec)
    started = time.perf_counter()
    rows = [encoder.encode(features[at : at + 8]) for at in range(0, len(features), 8)]
    return np.concatenate(rows), 1e3 * (time.perf_counter() - started) / len(features)


def _rerank(
    codec: FeatureCodec, card: Card, queries: np.ndarray, rows: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, dict[str, float]]:
    """Return (queries, candidates) counts and the median milliseconds per query of decoding and matching."""
    decode_s, match_s, counts = [], [], []
    for query, candidates in zip(queries, order, strict=True):
        chosen = rows[candidates]
        started = time.perf_counter()
        decoded = codec.decode(chosen)
        decode_s.append(time.perf_counter() - started)
        started = time.perf_counter()
        counts.append(count_matches(query, decoded, np.ones(len(chosen), bool), card, codec=codec))
        match_s.append(time.perf_counter() - started)
    times = {"decode": 1e3 * statistics.median(decode_s), "match": 1e3 * statistics.median(match_s)}
    return np.array(counts), times
