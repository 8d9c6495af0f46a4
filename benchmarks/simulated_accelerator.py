"""The index pipeline with a simulated accelerator, which sleeps as long as each batch would take."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.drawn_photos import DRAWN
from benchmarks.learned_codec import learn_codec
from benchmarks.timeline import busy_seconds
from pipelines.defaults import COMMIT_EVERY, COMMIT_SECONDS
from pipelines.indexing.cluster import Cluster
from pipelines.indexing.commits import Committer
from pipelines.indexing.extract import Extract
from pipelines.indexing.plan import Request
from pipelines.indexing.rounds import Rounds
from pipelines.indexing.run_metrics import NoMetrics
from pipelines.indexing.tally import Tally
from pipelines.indexing.watch import Watch
from pipelines.ray_session import ray_session
from pipelines.sources import list_source
from storage.card import Card, Preprocessing
from storage.features.encodings import open_codec
from storage.store import Store

__all__ = ["card_of", "simulate"]

BATCH = 32
# (descriptor, grid, channels): the default model's, and SelaVPR's with ViT-L/14.
SHAPES = {"default": (1280, 14, 112), "large": (1024, 61, 128)}
OBJECT_STORE_BYTES = {"default": 512 << 20, "large": 2 << 30}


def card_of(shape: str, features: str) -> Card:
    width, grid, channels = SHAPES[shape]
    card = Card(
        model=f"simulated-{shape}",
        weights_sha256="0" * 64,
        preprocessing=Preprocessing("pil_bilinear", 224, 224, (0.5,) * 3, (0.25,) * 3),
        descriptor_dim=width,
        grid_height=grid,
        grid_width=grid,
        feature_dim=channels,
        min_similarity=None,
    )
    return card.stored_as(features)  # type: ignore[arg-type]


def make_store(folder: Path, card: Card) -> Store:
    """Make a store; if its features are projected, the projection is learned from noise."""
    noise = np.random.default_rng(0).standard_normal((64, 64, card.feature_dim), dtype=np.float32)
    codec = learn_codec(card, card.feature_encoding, noise)
    named = card.stored_as(card.feature_encoding, projection_sha256=codec.projection_sha256)
    return Store.create(str(folder), named, projection=codec.projection)


class SleepingExtract(Extract):
    """Sleeps as long as an accelerator would take, which encodes too; `model` is its rate in images/s."""

    def __init__(self, *, model: str, store_uri: str, card: str, trace: str | None = None, **_: Any) -> None:
        from models.feature_encoder import FeatureEncoder

        self.card = Card.from_json(card)
        self.trace, self.failure, self.rate = trace, None, float(model)
        generator = np.random.default_rng(0)
        size = self.card
        drawn = generator.standard_normal((DRAWN, size.descriptor_dim), dtype=np.float32)
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        cells = (DRAWN, size.grid_height, size.grid_width, size.feature_dim)
        features = generator.standard_normal(cells, dtype=np.float32)
        features /= np.linalg.norm(features, axis=-1, keepdims=True)
        rows = FeatureEncoder(open_codec(Path(store_uri), self.card)).encode(features)
        self.drawn = [(d, row.tobytes(), None) for d, row in zip(drawn.astype(np.float16), rows, strict=True)]

    def _extract(self, pixels: np.ndarray) -> list[Any]:
        time.sleep(len(pixels) / self.rate)
        return [self.drawn[at % DRAWN] for at in range(len(pixels))]


def simulate(photos: str, folder: str, shape: str, features: str, rate: str) -> dict[str, Any]:
    """Index a folder of photos with the simulated accelerator, in this process.

    Args:
        photos: The folder.
        folder: Gets the store and `trace`.
        shape: One of `SHAPES`.
        features: How the store keeps local features.
        rate: Images/s of the accelerator.
    """
    store = make_store(Path(folder, "store"), card_of(shape, features))
    trace = Path(folder, "trace")
    listing = list_source(photos)
    work = listing
    for name in ("stored_sha256", "stored_uri"):
        work = work.append_column(name, pa.nulls(len(work), pa.string()))
    work = work.append_column("amend", pa.array(np.zeros(len(work), bool)))
    tally = Tally(total=len(work), progress=lambda *_: None)
    import ray.data

    began = time.perf_counter()
    with store.lease(), ray_session(object_store_bytes=OBJECT_STORE_BYTES[shape]) as ray:
        request = Request(
            model=rate,
            row_bytes=store.codec.row_bytes,
            extractors=1,
            extractor_cpus=0.0,  # an accelerator takes no core
            batch_size=BATCH,
            trace=str(trace),
        )
        watch = Watch(Cluster(ray), say=print, metrics=NoMetrics(), total=len(work))
        rounds = Rounds(ray, store, request, watch, max_age_s=COMMIT_SECONDS / 2, extract=SleepingExtract)
        with contextlib.closing(rounds.rows(work)) as rows:
            Committer(
                store, tally, commit_every=COMMIT_EVERY, commit_seconds=COMMIT_SECONDS, trace=str(trace)
            ).commit_all(rows)
    if tally.extracted != len(work):
        raise SystemExit(f"{tally.extracted} of {len(work)} photos were extracted")
    spans = [json.loads(line) for line in trace.read_text().splitlines()]
    return {
        "images": len(work),
        "shape": shape,
        "features": features,
        "accelerator_images_per_s": float(rate),
        **_rates(spans),
        "seconds": round(time.perf_counter() - began, 1),
        "core_ms_per_image": {
            stage: round(1e3 * seconds / len(work), 3)
            for stage, seconds in busy_seconds(spans).items()
            if stage != "extract"
        },
        "bytes_per_image": {
            stage: round(sum(s["bytes"] for s in spans if s["stage"] == stage) / len(work))
            for stage in ("decode", "extract", "write")
        },
    }


def _rates(spans: list[dict[str, Any]]) -> dict[str, float]:
    """Return the images/s of the second half alone, since Ray workers take seconds to start."""
    extracts = sorted((s for s in spans if s["stage"] == "extract"), key=lambda s: s["end_s"])
    half = extracts[len(extracts) // 2 :]
    rows, began = sum(s["rows"] for s in half[1:]), half[0]["end_s"]
    steady = rows / (half[-1]["end_s"] - began)
    through = rows / (max(s["end_s"] for s in spans) - began)  # whether writing keeps up
    return {"images_per_s": round(steady, 1), "images_per_s_to_last_commit": round(through, 1)}
