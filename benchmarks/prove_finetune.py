"""Proof that fine-tuning learns, on two cores in under an hour each. Writes results/finetune.json.

    python -m benchmarks.prove_finetune demo            train on one generated city, evaluate on another
    python -m benchmarks.prove_finetune hard            the same in hard mode, on smaller cities
    python -m benchmarks.prove_finetune vit             a small random ViT overfits a tiny set
    python -m benchmarks.prove_finetune corridor --photos DIR    first half of a real route to second half
    python -m benchmarks.prove_finetune forgetting --photos DIR  what the city's weights lose on real photos

Each model is measured in two ways: with descriptors learned from the database and by votes, which is how
the default model is used, and with its own pooled descriptors and by the count of matches, where training
has more to gain. Measured are the weights that `finetune` writes, which are the untrained ones where no
epoch was better on the validation photos, and those of the last step, which show what training changed.

DIR is a data set in the standard layout with database/ and queries/ whose file names carry metres along a
route, such as Corridor (Milford 2013) from VPR-Bench. `forgetting` uses the weights that `demo` left.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.kept import add_kept_folder
from benchmarks.results import make_parser, read_results, write_results
from models.aggregation.choice import GEM, LEARNED
from models.checkpoints.weights_file import save_weights
from models.networks.architecture import Architecture
from models.networks.selavpr import SelaVPR
from models.training.checkpoint import read_trained
from pipelines.demo.dataset import draw_city
from pipelines.evaluation.job import evaluate
from pipelines.sources import list_source, open_dataset
from pipelines.training.checkpoints import STATE
from pipelines.training.job import finetune
from pipelines.training.settings import TrainingSettings
from pipelines.training.worker import trainable_model
from serving.matching_options import Matching

TRAIN_SEED, VAL_SEED, TEST_SEED = 1, 2, 0
DATABASE, QUERIES = 480, 240
HARD_DATABASE, HARD_QUERIES = 240, 80
# Three passes over the queries of the training city; the defaults are the published ones otherwise.
STANDARD = TrainingSettings(epochs=3, queries_per_round=120)
# Adapters only behind the map that local features come from: re-ranking stays what it was. And fewer steps.
CAREFUL = TrainingSettings(epochs=1, queries_per_round=120, adapter_stages=(5, 6), local_weight=0.0)
RECIPES = {"standard": STANDARD, "careful": CAREFUL}
WAYS: dict[str, dict[str, Any]] = {
    "learned": {"aggregation": LEARNED, "matching": Matching(score="votes")},
    "own": {"aggregation": GEM, "matching": Matching(score="count")},
}


def main() -> None:
    parser = make_parser(__doc__, "finetune.json")
    parser.add_argument("what", choices=("demo", "hard", "corridor", "forgetting", "vit"))
    parser.add_argument("--photos", type=Path, metavar="DIR", help="data set of real photos along a route")
    add_kept_folder(parser, "--work", "finetune", Path("placeray-proof"))
    args = parser.parse_args()
    if args.what in ("corridor", "forgetting") and (args.photos is None or not args.photos.is_dir()):
        parser.error(f"{args.what} needs real photos: give their folder with --photos")
    started = time.perf_counter()
    result = {"demo": demo, "hard": hard, "corridor": corridor, "forgetting": forgetting, "vit": vit}[
        args.what
    ](args)
    result |= {
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "command": f"python -m benchmarks.prove_finetune {args.what}"
        + (" --photos DIR" if args.photos else ""),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }
    write_results(args.out, read_results(args.out) | {args.what: result})
    print(json.dumps(result, indent=2))


def demo(args: argparse.Namespace) -> dict[str, Any]:
    """Train on one city, choose on a second, evaluate on a third that neither training nor choosing saw."""
    city = {seed: _city(args.work, seed) for seed in (TRAIN_SEED, VAL_SEED, TEST_SEED)}
    return _trials(args.work, "", city[TRAIN_SEED], "test", city[VAL_SEED], "test", city[TEST_SEED])


def hard(args: argparse.Namespace) -> dict[str, Any]:
    """Train on one city in hard mode, choose on a second, evaluate on a third."""
    city = {}
    for seed in (TRAIN_SEED, VAL_SEED, TEST_SEED):
        city[seed] = args.work / f"hard-{seed}"
        draw_city(city[seed], seed=seed, database_images=HARD_DATABASE, query_images=HARD_QUERIES, hard=True)
    return _trials(args.work, "hard-", city[TRAIN_SEED], "test", city[VAL_SEED], "test", city[TEST_SEED])


def corridor(args: argparse.Namespace) -> dict[str, Any]:
    """Train on the first half of a route, its last quarter choosing; evaluate on the second half."""
    halves = _halves(args.photos, args.work / "halves")
    # A few dozen queries per epoch, so more epochs.
    more = {"epochs": 10, "patience": 10}
    return _trials(args.work, "corridor-", halves, "train", halves, "val", halves, more)


def forgetting(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate the last weights trained on a generated city on all real photos."""
    result: dict[str, Any] = {"before": _recalls(args.photos, None)}
    for name in RECIPES:
        weights = _last_of(args.work, name)
        if not weights.exists():
            sys.exit(f"{weights} does not exist: run `python -m benchmarks.prove_finetune demo` first")
        result[name] = {"last": _recalls(args.photos, weights)}
        for way in WAYS:
            _table(f"real photos, {name}, {way}", result["before"][way], result[name]["last"][way])
    return result


def vit(args: argparse.Namespace) -> dict[str, Any]:
    """Show that the ViT path trains: random frozen weights, adapters, a tiny set to overfit."""
    torch.manual_seed(0)
    start = args.work / "random-vit.safetensors"
    if not start.exists():
        model = SelaVPR(Architecture(width=96, depth=4, num_heads=3, mlp_width=384), local_head=True)
        # New blocks scale what they add by next to nothing, and what adapters add with it.
        for name, weights in model.named_parameters():
            if name.endswith("gamma"):
                weights.data.fill_(1.0)
        save_weights(start, model)
    tiny = _tiny(_city(args.work, TRAIN_SEED), args.work / "tiny", places=8)
    settings = TrainingSettings(
        model=str(start),
        image_size=(112, 112),
        epochs=60,
        patience=60,
        learning_rate=1e-3,
        batch=8,
        negatives=6,
    )
    weights = _trained(args.work, "vit", settings, tiny, "train", tiny, "val")
    before, after = (
        evaluate(tiny, model=str(model), image_size=(112, 112), split="val")["recall"]
        for model in (start, weights)
    )
    _table("a tiny set, overfitted", before, after)
    return {"before": before, "after": after, "settings": _short(settings)}


def _city(work: Path, seed: int) -> Path:
    folder = work / f"city{seed}"
    draw_city(folder, seed=seed, database_images=DATABASE, query_images=QUERIES)
    return folder


def _halves(photos: Path, folder: Path) -> Path:
    """Cut a route in two by its longer axis: train and val from the first half, test is the second."""
    layout = open_dataset(photos)
    for side in ("database", "queries"):
        listing = list_source(getattr(layout, side)).to_pylist()
        spans = {axis: [row[axis] for row in listing] for axis in ("utm_e", "utm_n")}
        axis = max(spans, key=lambda name: max(spans[name]) - min(spans[name]))
        first, last = min(spans[axis]), max(spans[axis])
        for row in listing:
            along = (row[axis] - first) / (last - first)
            split = "train" if along <= 0.375 else "val" if along <= 0.5 else "test"
            target = folder / "images" / split / side
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(row["uri"], target)
    return folder


def _tiny(city: Path, folder: Path, *, places: int) -> Path:
    """Take a few queries far apart, and one database photo near each; train and val are the same."""
    layout = open_dataset(city)
    database = list_source(layout.database).to_pylist()
    chosen: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for query in list_source(layout.queries).to_pylist():
        nearest = min(database, key=lambda row: _metres(row, query))
        apart = all(_metres(nearest, other) > 60 for _, other in chosen)
        if apart and _metres(nearest, query) <= 10 and len(chosen) < places:
            chosen.append((query, nearest))
    for split in ("train", "val"):
        for side, rows in (("queries", [q for q, _ in chosen]), ("database", [d for _, d in chosen])):
            target = folder / "images" / split / side
            target.mkdir(parents=True, exist_ok=True)
            for row in rows:
                shutil.copy(row["uri"], target)
    return folder


def _metres(one: dict[str, Any], other: dict[str, Any]) -> float:
    return float(((one["utm_e"] - other["utm_e"]) ** 2 + (one["utm_n"] - other["utm_n"]) ** 2) ** 0.5)


def _trials(
    work: Path,
    prefix: str,
    train: Path,
    split: str,
    val: Path,
    val_split: str,
    test: Path,
    changes: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train by each recipe, and evaluate the model before, what was written, and the last step."""
    result: dict[str, Any] = {"before": _recalls(test, None)}
    for name, recipe in RECIPES.items():
        settings = dataclasses.replace(recipe, **(changes or {}))
        weights = _trained(work, prefix + name, settings, train, split, val, val_split)
        facts = json.loads((weights.with_suffix(".run") / "report.json").read_text())["facts"]
        last = _recalls(test, _write_last(work, prefix + name, settings))
        result[name] = {
            "written": _recall(test, weights),
            "last": last,
            "best_epoch": facts["best_epoch"],
            "steps": facts["steps"],
            "validation": {"before": facts["before_ways"], "after": facts["after_ways"]},
            "settings": _short(settings),
        }
        for way, recall in last.items():
            _table(f"{prefix}{name}, {way}", result["before"][way], recall)
    return result


def _trained(
    work: Path, name: str, settings: TrainingSettings, train: Path, split: str, val: Path, val_split: str
) -> Path:
    weights = work / f"{name}.safetensors"
    if not weights.exists():
        finetune(train, weights, settings=settings, split=split, val=val, val_split=val_split)
    return weights


def _last_of(work: Path, name: str) -> Path:
    return work / f"{name}-last.safetensors"


def _write_last(work: Path, name: str, settings: TrainingSettings) -> Path:
    """Write the weights of the last step, from the newest checkpoint of a run."""
    checkpoints = sorted((work / f"{name}.run" / "checkpoints").glob(f"checkpoint_*/{STATE}"))
    model, card = trainable_model(settings)
    values = read_trained(checkpoints[-1], model)
    if values["progress"]["epoch"] != settings.epochs:
        raise RuntimeError(f"{checkpoints[-1]} is of epoch {values['progress']['epoch']}, not the last")
    save_weights(_last_of(work, name), model, preprocessing=card.preprocessing)
    return _last_of(work, name)


def _recall(dataset: Path, weights: Path | None, **how: Any) -> dict[str, dict[str, float]]:
    model = str(weights) if weights else None
    recall: dict[str, dict[str, float]] = evaluate(dataset, model=model, **how)["recall"]
    return recall


def _recalls(dataset: Path, weights: Path | None) -> dict[str, dict[str, dict[str, float]]]:
    """Return the recall of a model in both ways of using it."""
    return {name: _recall(dataset, weights, **how) for name, how in WAYS.items()}


def _short(settings: TrainingSettings) -> dict[str, Any]:
    default = TrainingSettings().to_dict()
    return {
        name: value
        for name, value in settings.to_dict().items()
        if value != default[name] and name != "model"
    }


def _table(title: str, before: dict[str, dict[str, float]], after: dict[str, dict[str, float]]) -> None:
    print(f"\n{title}\n{'':<20}" + "".join(f"{'R@' + k:>16}" for k in before["global"]))
    for stage in before:
        cells = "".join(f"{before[stage][k]:>7.1f} -> {after[stage][k]:>5.1f}" for k in before[stage])
        print(f"{stage:<20}{cells}", flush=True)


if __name__ == "__main__":
    main()
