"""How encodings of large maps of local features change the number of mutual neighbours."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.large_maps import large_card, smooth_images
from benchmarks.learned_codec import learn_codec
from models.feature_encoder import FeatureEncoder
from models.weights import load_card
from serving.counting import count_matches
from storage.card import FEATURE_ENCODINGS

__all__ = ["measure_counts"]


def measure_counts() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    pictures = smooth_images(6, generator)
    card = large_card(load_card("efficientnet-lite0"))
    # The same place again: moved by three cells, with noise of several strengths.
    stored = []
    for disturbed in (0.02, 0.04, 0.08, 0.16):
        again = np.roll(pictures[0], 3, axis=1) + disturbed * generator.standard_normal(pictures[0].shape)
        stored.append(again / np.linalg.norm(again, axis=-1, keepdims=True))
    images = np.concatenate([np.array(stored), pictures[1:3]]).astype(np.float16)
    sample = np.concatenate([images, pictures[3:].astype(np.float16)])
    figures: dict[str, Any] = {}
    exact = np.zeros(len(images))
    for encoding in FEATURE_ENCODINGS:
        codec = learn_codec(card, encoding, sample)
        rows = FeatureEncoder(codec).encode(images)
        decoded = codec.decode(rows)
        started = time.perf_counter()
        counts = count_matches(pictures[0], decoded, np.ones(len(images), bool), card, codec=codec)
        match_s = time.perf_counter() - started
        if encoding == "float16":
            exact = np.array(counts)
        figures[encoding] = {
            "bytes_image": codec.row_bytes,
            "encode_ms_image": _fastest_ms(
                FeatureEncoder(codec), torch.from_numpy(images.astype(np.float32))
            ),
            "decode_ms_image": _fastest_ms(codec.decode, rows),
            "match_ms_image": round(1e3 * match_s / len(images), 2),
            "counts": counts,
            "relative_error": round(float(np.mean(np.abs(np.array(counts) / exact - 1))), 4),
        }
        print(f"{encoding:12} {figures[encoding]}", flush=True)
    return figures


def _fastest_ms(work: Callable[[Any], object], images: Any, *, rounds: int = 5) -> float:
    """Return the milliseconds per image of the fastest of some rounds."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        work(images)
        seconds.append(time.perf_counter() - started)
    return round(1e3 * min(seconds) / len(images), 2)
