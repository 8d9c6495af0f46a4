"""Local features on disk: bytes, time and what they cost in recall, encoding by encoding.

    python -m benchmarks.bench_features recall DATASET... --out results/features.json
    python -m benchmarks.bench_features dense DATASET...
    python -m benchmarks.bench_features counts

Each part fills in its own key of the JSON file. `recall` extracts each data set once with the default model
and re-ranks the same candidates with every encoding, in both directions. `dense` does so with maps of the
large model's shape, which the default model makes of enlarged photos; a quarter of an hour. `counts` compares
counts on grids of that shape, made of smooth noise.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.bench_index import cpu_name
from models.extractor import Extractor
from models.feature_encoder import FeatureEncoder
from models.images.decoder import decode_image
from models.images.photo_file import read_bytes
from models.weights import load_card, load_extractor
from pipelines.sources import Dataset, list_source, open_dataset
from serving.counting import count_matches
from storage.card import FEATURE_ENCODINGS, Card, FeatureEncoding
from storage.features.encodings import FeatureCodec, projected_channels
from storage.features.projection import fit_projection

CANDIDATES = 100
THRESHOLD_M = 25.0
SAMPLE_IMAGES = 64
LARGE_GRID, LARGE_CHANNELS = 61, 128
DENSE_PX, DENSE_CANDIDATES = 992, 20  # 62 x 62 cells, of which 61 x 61 are taken


def codec_of(card: Card, encoding: FeatureEncoding, stored: np.ndarray) -> FeatureCodec:
    kept = projected_channels(encoding, card.feature_dim)
    at = np.unique(np.linspace(0, len(stored) - 1, SAMPLE_IMAGES).astype(int))
    projection = None if kept is None else fit_projection(stored[at], kept)
    return FeatureCodec(card.stored_as(encoding), projection=projection)


class Photos(NamedTuple):
    """Photos of one side: (N, D) float32 descriptors, (N, H, W, C) float32 features, (N, 2) metres."""

    descriptors: np.ndarray
    features: np.ndarray
    points: np.ndarray


def extract(folder: Path, extractor: Extractor) -> Photos:
    rows = list_source(folder).sort_by("uri").to_pylist()
    found = [extractor.extract([decode_image(read_bytes(row["uri"])).pixels]) for row in rows]
    points = np.array([(row["utm_e"], row["utm_n"]) for row in rows])
    return Photos(np.concatenate([d for d, _ in found]), np.concatenate([f for _, f in found]), points)


def recall(layout: Dataset, encodings: Sequence[FeatureEncoding]) -> dict[str, Any]:
    """Ask one side about the other and the other way round: of both, one query is a smaller share."""
    extractor = load_extractor("efficientnet-lite0", device="cpu")
    sides = extract(layout.queries, extractor), extract(layout.database, extractor)
    return both_ways(layout.name, *sides, extractor.card, encodings, candidates=CANDIDATES)


def dense(layout: Dataset, encodings: Sequence[FeatureEncoding]) -> dict[str, Any]:
    """Do the same with maps of the large model's shape out of the default model, from enlarged photos.

    Their 112 channels are turned into 128 by a fixed matrix that changes no inner product. Every mutual
    neighbour counts, as with SelaVPR.
    """
    extractor = load_extractor("efficientnet-lite0", device="cpu")
    large = load_extractor("efficientnet-lite0", device="cpu", image_size=(DENSE_PX, DENSE_PX))
    width = extractor.card.feature_dim
    turn = np.linalg.qr(np.random.default_rng(7).standard_normal((LARGE_CHANNELS, width)))[0].T
    sides = []
    for folder in (layout.queries, layout.database):
        cells = extract(folder, large).features[:, :LARGE_GRID, :LARGE_GRID] @ turn.astype(np.float32)
        sides.append(extract(folder, extractor)._replace(features=cells))
    card = dataclasses.replace(
        extractor.card,
        grid_height=LARGE_GRID,
        grid_width=LARGE_GRID,
        feature_dim=LARGE_CHANNELS,
        min_similarity=None,
    )
    return both_ways(f"{layout.name}, dense", *sides, card, encodings, candidates=DENSE_CANDIDATES)


def both_ways(
    name: str,
    queries: Photos,
    database: Photos,
    card: Card,
    encodings: Sequence[FeatureEncoding],
    *,
    candidates: int,
) -> dict[str, Any]:
    found: dict[str, Any] = {"candidates": candidates}
    hits: dict[str, list[np.ndarray]] = defaultdict(list)
    for way, asked, stored in (("forwards", queries, database), ("backwards", database, queries)):
        found[way], right = compare(f"{name}, {way}", asked, stored, card, encodings, candidates)
        for encoding, hit in right.items():
            hits[encoding].append(hit)
    pooled = {encoding: np.concatenate(parts) for encoding, parts in hits.items()}
    found["both"] = {
        encoding: {
            "queries": len(hit),
            "recall_1": round(100 * float(hit.mean()), 2),
            "lost": int((pooled["float16"] & ~hit).sum()),
            "gained": int((hit & ~pooled["float16"]).sum()),
        }
        for encoding, hit in pooled.items()
    }
    for encoding, row in found["both"].items():
        print(f"{name}, both ways: {encoding:12} {row}", flush=True)
    return found


def compare(
    name: str,
    asked: Photos,
    database: Photos,
    card: Card,
    encodings: Sequence[FeatureEncoding],
    candidates: int,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Re-rank the same candidates with every encoding; return figures, and which queries each has right."""
    stored = database.features.astype(np.float16)
    # As the store does: descriptors in half precision, best first.
    similarity = asked.descriptors @ database.descriptors.astype(np.float16).astype(np.float32).T
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :candidates]
    distance = np.hypot(*(asked.points[:, None] - database.points[order]).transpose(2, 0, 1))
    right = distance <= THRESHOLD_M + 1e-6
    found: dict[str, Any] = {"queries": len(order), "database": len(stored)}
    found["global"] = round(100 * float(right[:, 0].mean()), 2)
    exact: np.ndarray | None = None
    hits = {}
    for encoding in encodings:
        codec = codec_of(card, encoding, stored)
        encoder = FeatureEncoder(codec)
        began = time.perf_counter()
        # From float32, some images at a time, as the extractor does.
        rows = np.concatenate(
            [encoder.encode(database.features[at : at + 8]) for at in range(0, len(stored), 8)]
        )
        encode_ms = 1e3 * (time.perf_counter() - began) / len(rows)
        decode_s, match_s, counts = [], [], []
        for photo, chosen in zip(asked.features, order, strict=True):
            taken = rows[chosen]
            began = time.perf_counter()
            decoded = codec.decode(taken)
            decode_s.append(time.perf_counter() - began)
            began = time.perf_counter()
            counts.append(count_matches(photo, decoded, np.ones(len(chosen), bool), card, codec=codec))
            match_s.append(time.perf_counter() - began)
        counted = np.array(counts)
        exact = counted if exact is None else exact
        first = np.argsort(-counted, axis=1, kind="stable")[:, 0]
        hits[encoding] = right[np.arange(len(right)), first]
        each = 1e3 * 100 / candidates
        found[encoding] = {
            "recall_1": round(100 * float(hits[encoding].mean()), 2),
            "bytes_image": codec.row_bytes,
            "encode_ms_image": round(encode_ms, 3),
            "decode_ms_100": round(each * statistics.median(decode_s), 2),
            "match_ms_100": round(each * statistics.median(match_s), 2),
            "count_error": round(float(np.abs(counted - exact).mean()), 3),
            "count_mean": round(float(exact.mean()), 2),
        }
        print(f"{name}: {encoding:12} {found[encoding]}", flush=True)
    return found, hits


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


def fastest_ms(work: Callable[[Any], object], given: Any, *, rounds: int = 5) -> float:
    """Return the milliseconds an image of the fastest of some rounds."""
    spent = []
    for _ in range(rounds):
        began = time.perf_counter()
        work(given)
        spent.append(time.perf_counter() - began)
    return round(1e3 * min(spent) / len(given), 2)


def counts() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    pictures = smooth_images(6, generator)
    card = load_card("efficientnet-lite0")
    card = dataclasses.replace(
        card,
        grid_height=LARGE_GRID,
        grid_width=LARGE_GRID,
        feature_dim=LARGE_CHANNELS,
        min_similarity=None,
    )
    # The same place again: moved by three cells and disturbed; and by less and more.
    stored = []
    for disturbed in (0.02, 0.04, 0.08, 0.16):
        again = np.roll(pictures[0], 3, axis=1) + disturbed * generator.standard_normal(pictures[0].shape)
        stored.append(again / np.linalg.norm(again, axis=-1, keepdims=True))
    images = np.concatenate([np.array(stored), pictures[1:3]]).astype(np.float16)
    sample = np.concatenate([images, pictures[3:].astype(np.float16)])
    found: dict[str, Any] = {}
    exact = np.zeros(len(images))
    for encoding in FEATURE_ENCODINGS:
        codec = codec_of(card, encoding, sample)
        rows = FeatureEncoder(codec).encode(images)
        decoded = codec.decode(rows)
        began = time.perf_counter()
        counted = count_matches(pictures[0], decoded, np.ones(len(images), bool), card, codec=codec)
        matched = time.perf_counter()
        if encoding == "float16":
            exact = np.array(counted)
        found[encoding] = {
            "bytes_image": codec.row_bytes,
            "encode_ms_image": fastest_ms(FeatureEncoder(codec), torch.from_numpy(images.astype(np.float32))),
            "decode_ms_image": fastest_ms(codec.decode, rows),
            "match_ms_image": round(1e3 * (matched - began) / len(images), 2),
            "counts": counted,
            "relative_error": round(float(np.mean(np.abs(np.array(counted) / exact - 1))), 4),
        }
        print(f"{encoding:12} {found[encoding]}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", choices=("recall", "dense", "counts"))
    parser.add_argument("dataset", nargs="*", help="data sets in the standard layout, for recall and dense")
    parser.add_argument(
        "--encodings",
        nargs="+",
        choices=FEATURE_ENCODINGS,
        default=FEATURE_ENCODINGS,
        help="for recall and dense; float16 first",
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "features.json")
    args = parser.parse_args()
    torch.set_num_threads(2 if args.part == "dense" else 1)
    found = json.loads(args.out.read_text()) if args.out.exists() else {}
    if args.part in ("recall", "dense"):
        measured = recall if args.part == "recall" else dense
        layouts = [open_dataset(path, split="test") for path in args.dataset]
        if len({layout.name for layout in layouts}) < len(layouts):
            parser.error("two data sets have one name, by which the results are kept: measure one at a time")
        for layout in layouts:
            found.setdefault(args.part, {})[layout.name] = measured(layout, args.encodings)
    else:
        found[args.part] = counts()
    found.setdefault("machines", {})[args.part] = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    found.setdefault("commands", {})[args.part] = " ".join(["bench_features", args.part])
    found.setdefault("load_average", {})[args.part] = os.getloadavg()
    args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
