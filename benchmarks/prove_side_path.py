"""Proof that SelaVPR++'s adapters learn, on one generated city for another. Writes results/side_path.json.

    python -m benchmarks.prove_side_path

The trunk is a small vision transformer with random weights, which never change; both stages are trained
beside it in minutes: the float branch, then the hash branch. Recall is that of the descriptor, or of codes by
Hamming distance, on a city that neither training nor choosing saw.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe_machine
from benchmarks.results import make_parser, write_results
from models.checkpoints.untrained_selavprpp import untrained_selavprpp
from models.checkpoints.weights_file import save_weights
from models.networks.architecture import Architecture
from models.networks.dinov2 import DinoV2
from pipelines.demo.dataset import draw_city
from pipelines.training.data import TrainingSet, open_training_set
from pipelines.training.loop import TrainingLoop
from pipelines.training.settings import TrainingSettings
from pipelines.training.worker import trainable_model

TRAIN_SEED, VAL_SEED, TEST_SEED = 1, 2, 0
SHAPE = Architecture(width=128, depth=4, num_heads=4, mlp_width=256)
SIDE = 112


def write_start(path: Path) -> None:
    """Write the untrained model."""
    torch.manual_seed(0)
    trunk = DinoV2(SHAPE)
    for name, weights in trunk.named_parameters():
        if name.endswith("gamma"):
            weights.data.fill_(1.0)
        elif "pos_embed" in name:
            weights.data.normal_(std=0.02)
    save_weights(
        path, untrained_selavprpp(SHAPE, {f"backbone.{k}": v for k, v in trunk.state_dict().items()})
    )


def trained(
    start: Path, out: Path, sets: list[TrainingSet], test: TrainingSet, **changes: Any
) -> dict[str, Any]:
    """Train one stage and return recall on the test city before and after."""
    settings = TrainingSettings(
        model=str(start), image_size=(SIDE, SIDE), queries_per_round=120, batch=12, negatives=2, **changes
    )
    model, card = trainable_model(settings)
    before = measured(model, card, settings, test)
    rows: list[dict[str, Any]] = []
    began = time.perf_counter()
    loop = TrainingLoop(model, card.preprocessing, settings, *sets, on_row=rows.append)
    with contextlib.closing(loop):
        loop.run()
    seconds = time.perf_counter() - began
    save_weights(out, model, preprocessing=card.preprocessing)
    steps = [row for row in rows if row["kind"] == "step"]
    return {
        "before": before,
        "after": measured(model, card, settings, test),
        "loss_first": steps[0]["loss"],
        "loss_last": steps[-1]["loss"],
        "steps": loop.progress.step,
        "images_per_s": steps[-1]["images_per_s"],
        "seconds": round(seconds),
    }


def measured(model: Any, card: Any, settings: TrainingSettings, test: TrainingSet) -> dict[str, float]:
    """Return R@1 and R@5 of the trained branch on a city."""
    loop = TrainingLoop(model, card.preprocessing, dataclasses.replace(settings), test, test)
    with contextlib.closing(loop):
        recall = loop.validate([None])[0]
    return {"recall_1": recall.global_1, "recall_5": recall.global_5}


def main() -> None:
    """Draw the cities, train both stages and write the recalls."""
    parser = make_parser(__doc__, "side_path.json")
    parser.add_argument("--database", type=int, default=240)
    parser.add_argument("--queries", type=int, default=120)
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cities = {}
        for seed in (TRAIN_SEED, VAL_SEED, TEST_SEED):
            city = Path(folder, f"city{seed}")
            draw_city(city, seed=seed, database_images=args.database, query_images=args.queries)
            cities[seed] = open_training_set(city, split="test")
        start, floats, codes = (Path(folder, f"{name}.safetensors") for name in ("start", "float", "codes"))
        write_start(start)
        sets = [cities[TRAIN_SEED], cities[VAL_SEED]]
        options: dict[str, Any] = {"epochs": args.epochs, "patience": args.epochs}
        results = {
            "machine": describe_machine(torch=torch.__version__),
            "float": trained(start, floats, sets, cities[TEST_SEED], **options),
            "codes": trained(floats, codes, sets, cities[TEST_SEED], codes=True, **options),
        }
    write_results(args.out, results)


if __name__ == "__main__":
    main()
