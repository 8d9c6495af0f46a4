"""What values of a late layer are worth beside the last layer's tokens. Writes results/values.json.

    python -m benchmarks.prove_values --work DIR

Small transformers that learned on one drawn city without labels of places (`small_trunk`, in DIR) make the
local features of another drawn city, with no head trained for them: tokens of the last layer, as in stores
whose card names no layer, or values of the layer before the last, of the half of the cells that the class
token attends to most, or of all. One transformer learned by its class token alone, as networks for whole
images do; the other was also told what the tokens of its last layer should say of their cells. Each way is a
store of its own, indexed and evaluated as by the command line, which learns descriptors from its features.
"""

# ruff: noqa: E402 (what follows `sleep_while_waiting` imports torch, whose threads read their setting then)

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from models.runtime.threads import sleep_while_waiting

sleep_while_waiting()

from benchmarks.kept import add_kept_folder
from benchmarks.results import make_parser, write_results
from benchmarks.small_trunk import SEED, SHAPE, SIDE, STEPS, small_trunk
from models.aggregation.choice import chosen_aggregation, with_aggregation
from models.checkpoints.pretrained import untrained_parts
from models.checkpoints.tensors import fill
from models.checkpoints.weights_file import save_weights
from models.networks.build import build_selavpr
from models.networks.descriptions import SelaVPRDescription
from models.networks.local_layer import LocalLayer, late_layer
from models.weights import load_card
from pipelines.demo.dataset import draw_city
from pipelines.evaluation.job import evaluate
from pipelines.indexing.job import index
from pipelines.sources import open_dataset
from serving.matching_options import Matching, ScoreKind
from storage.features.encodings import FeatureCodec
from storage.store import Store

TEST_SEED, DATABASE, QUERIES = 0, 240, 80
LATE = late_layer(SHAPE.depth)
WAYS: dict[str, LocalLayer | None] = {
    "tokens of the last layer": None,
    "values, attended half": LATE,
    "values, all cells": LocalLayer(LATE.layer, attended_share=1.0),
}
TRANSFORMERS = {"class token": False, "class token and cells": True}
SCORES: tuple[ScoreKind, ...] = ("votes", "count")


def main() -> None:
    """Train the transformers where that is not done yet, and evaluate each way."""
    parser = make_parser(__doc__, "values.json")
    add_kept_folder(parser, "--work", "values", Path("placeray-proof"))
    args = parser.parse_args()
    city = args.work / "other"
    draw_city(city, seed=TEST_SEED, database_images=DATABASE, query_images=QUERIES)
    results: dict[str, Any] = {
        "shape": {
            "width": SHAPE.width,
            "blocks": SHAPE.depth,
            "image_size": f"{SIDE}x{SIDE}",
            "layer": LATE.layer,
        },
        "cities": {"trained": SEED, "evaluated": TEST_SEED},
    }
    for kind, cells in TRANSFORMERS.items():
        weights, figures = _weights(args.work, cells=cells)
        ways = {}
        for name, local in WAYS.items():
            ways[name] = _recall(city, str(weights), local)
            print(f"{kind}, {name}: {ways[name]}", flush=True)
        results[kind] = {"training": figures, "ways": ways}
    write_results(args.out, results)


def _weights(work: Path, *, cells: bool) -> tuple[Path, dict[str, Any]]:
    """Return the file of a transformer, and the figures of its training."""
    trunk, figures = small_trunk(work, steps=STEPS, cells=cells)
    weights = work / ("vit.safetensors" if cells else "vit-class-token.safetensors")
    if not weights.exists():
        model = build_selavpr(SelaVPRDescription(SHAPE, local_head=False))
        fill(model, {f"backbone.{name}": tensor for name, tensor in trunk.items()} | untrained_parts(SHAPE))
        save_weights(weights, model)
    return weights, figures


def _recall(city: Path, weights: str, local: LocalLayer | None) -> dict[str, Any]:
    """Return R@1 before and after re-ranking by each score, in percent."""
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/store"
        card = load_card(weights, image_size=(SIDE, SIDE), local=local).stored_as("float16")
        learned = chosen_aggregation(None, card, FeatureCodec(card))
        artifacts = [learned.to_bytes()] if learned is not None else []
        Store.create(store, with_aggregation(card, learned), artifacts=artifacts)
        index(open_dataset(city).database, store, model=weights)
        recalls = {
            score: evaluate(city, store_uri=store, model=weights, matching=Matching(score=score))["recall"]
            for score in SCORES
        }
    return {"before": recalls["votes"]["global"]["1"]} | {
        score: recall["reranked"]["1"] for score, recall in recalls.items()
    }


if __name__ == "__main__":
    main()
