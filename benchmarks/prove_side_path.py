"""Proof that SelaVPR++'s adapters learn, on one drawn city for another. Writes results/side_path.json.

    python -m benchmarks.prove_side_path --work DIR

DINOv2's weights need a network: the trunk is the small one of `small_trunk`, which learned on the training
city without any label of places. Both stages are trained as a user does, by `placeray finetune`: the float
branch, then the hash branch. Recall is measured on a city that neither training nor choosing saw: by float
descriptors alone, by the Hamming distance of codes alone, and by `placeray evaluate`, which takes the hundred
nearest codes and orders them by float descriptors. The same command again goes on where it was stopped;
`bench_codes` uses what is left in DIR.
"""

# ruff: noqa: E402 (what follows `sleep_while_waiting` imports torch, whose threads read their setting then)

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from models.runtime.threads import sleep_while_waiting

sleep_while_waiting()

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.drawn_codes import DescribedPhotos, described_file
from benchmarks.kept import add_kept_folder
from benchmarks.results import make_parser, write_results
from benchmarks.small_trunk import SEED, SHAPE, SIDE, STEPS, small_trunk
from models.checkpoints.untrained_selavprpp import untrained_selavprpp
from models.checkpoints.weights_file import save_weights
from models.images.decoder import decode_image
from models.images.preprocess import prepare
from models.weights import load_network
from pipelines.demo.dataset import draw_city
from pipelines.sources import list_source, open_dataset

VAL_SEED, TEST_SEED = 1, 0
DATABASE, QUERIES = 240, 80
THRESHOLD_M, FIRST_STAGE = 25.0, 100
SIZE = f"{SIDE}x{SIDE}"
_PATHS = ("model", "dataset", "val")
RECIPE = ("--image-size", SIZE, "--batch", "24", "--queries-per-round", "120")


def main() -> None:
    """Train the trunk and both stages, where that is not done yet, and measure on the other city."""
    parser = make_parser(__doc__, "side_path.json")
    add_kept_folder(parser, "--work", "side path", Path("placeray-proof"))
    parser.add_argument("--epochs", type=int, default=4, help="of each stage; default: %(default)s")
    args = parser.parse_args()
    _, trunk = small_trunk(args.work, steps=STEPS)
    training, choosing, other = _cities(args.work)
    stages = _trained(args, training, choosing)
    weights = {name: args.work / f"{name}.safetensors" for name in ("start", "start-codes", "float", "codes")}
    described = {name: _described(args.work, name, other) for name in ("start-codes", "codes")}
    for city in (training, choosing):  # for `bench_codes`
        _described(args.work, "codes", city)
    write_results(
        args.out,
        {
            "trunk": trunk | {"width": SHAPE.width, "blocks": SHAPE.depth, "image_size": SIZE},
            "cities": {"trunk and training": SEED, "choosing": VAL_SEED, "other": TEST_SEED},
            "stages": stages,
            "float": {
                "before": _recall(described["start-codes"].floats, described["start-codes"]),
                "after": _recall(described["codes"].floats, described["codes"]),
            },
            "hash": {
                "before": _recall(_signs(described["start-codes"]), described["start-codes"]),
                "after": _recall(_signs(described["codes"]), described["codes"]),
            },
            "codes_then_float": {
                "before": _evaluated(other, weights["start-codes"]),
                "after": _evaluated(other, weights["codes"]),
            },
        },
    )


def _cities(work: Path) -> tuple[Path, Path, Path]:
    """Return the cities to train on, to choose the epoch on and to measure on."""
    training, choosing, other = work / f"city-{SEED}", work / "choosing", work / "other"
    draw_city(choosing, seed=VAL_SEED, database_images=DATABASE, query_images=QUERIES + 40)
    draw_city(other, seed=TEST_SEED, database_images=DATABASE, query_images=QUERIES)
    return training, choosing, other


def _trained(args: argparse.Namespace, city: Path, choosing: Path) -> dict[str, Any]:
    """Train both stages by the command line; return what their reports say."""
    start, floats, codes = (args.work / f"{name}.safetensors" for name in ("start", "float", "codes"))
    if not start.exists():
        trunk, _ = small_trunk(args.work, steps=STEPS)
        model = untrained_selavprpp(SHAPE, {f"backbone.{name}": tensor for name, tensor in trunk.items()})
        save_weights(start, model)
    reports = {}
    for name, before, after, flags in (("float", start, floats, ()), ("codes", floats, codes, ("--codes",))):
        if not after.exists():
            epochs = ("--epochs", str(args.epochs), "--patience", str(args.epochs))
            splits = ("--split", "test", "--val", str(choosing), "--val-split", "test")
            models = ("--model", str(before), "--out", str(after))
            _placeray("finetune", str(city), *splits, *models, *RECIPE, *epochs, *flags)
        reports[name] = _stage(after.with_suffix(".run"))
    untrained = args.work / "start-codes.safetensors"
    if not untrained.exists():
        network: Any = load_network(str(start))[0]
        network.train_branch(codes=True)
        save_weights(untrained, network)
    return reports


def _stage(run: Path) -> dict[str, Any]:
    """Return what a training run reports: its steps, speed and recall on the city that chose the epoch."""
    report = json.loads((run / "report.json").read_text())
    lines = (run / "log.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    steps = [row for row in rows if row["kind"] == "step"]
    return {
        "steps": int(steps[-1]["step"]),
        "loss_first": float(steps[0]["loss"]),
        "loss_last": float(steps[-1]["loss"]),
        "images_per_s": float(np.median([float(row["images_per_s"]) for row in steps])),
        "choosing_city": {name: report["recall"][name]["global"]["1"] for name in ("before", "after")},
        "settings": {name: value for name, value in report["settings"].items() if name not in _PATHS},
    }


def _placeray(*arguments: str) -> str:
    """Run a command of placeray and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def _evaluated(city: Path, weights: Path) -> dict[str, float]:
    """Return recall as `placeray evaluate` finds it."""
    said = _placeray(
        "evaluate", str(city), "--model", str(weights), "--image-size", SIZE, "--json", "--quiet"
    )
    return dict(json.loads(said)["recall"]["global"])


def _described(work: Path, name: str, city: Path) -> DescribedPhotos:
    """Describe all photos of a city, once."""
    path = described_file(work, name, city.name)
    if not path.exists():
        describe_city(city, work / f"{name}.safetensors").save(path)
    return DescribedPhotos.load(path)


def describe_city(city: Path, weights: Path, *, split: str = "test") -> DescribedPhotos:
    """Return what weights with codes make of all photos of a city."""
    network, card = load_network(str(weights), image_size=(SIDE, SIDE))
    pre = card.preprocessing
    mean, std = (torch.tensor(each)[:, None, None] for each in (pre.mean, pre.std))
    layout = open_dataset(city, split=split)
    sides = [list_source(folder).to_pylist() for folder in (layout.database, layout.queries)]
    rows = [row for side in sides for row in side]
    values, floats = [], []
    for at in range(0, len(rows), 32):
        pixels = [
            prepare(decode_image(Path(row["uri"]).read_bytes()).pixels, pre) for row in rows[at : at + 32]
        ]
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            outputs = network((images - mean) / std)
        floats.append(outputs[0].numpy())
        values.append(outputs[2].numpy())
    return DescribedPhotos(
        np.concatenate(values),
        np.concatenate(floats),
        np.array([(row["utm_e"], row["utm_n"]) for row in rows]),
        np.array([row["heading_deg"] for row in rows]),
        np.arange(len(rows)) < len(sides[0]),
    )


def _signs(photos: DescribedPhotos) -> NDArray[np.float32]:
    return np.where(photos.values >= 0, np.float32(1), np.float32(-1))


def _recall(vectors: NDArray[np.float32], photos: DescribedPhotos) -> dict[str, float]:
    """Return the share of queries with a right photo among the nearest by inner product, in percent."""
    stored, asked = photos.database, ~photos.database
    far = np.linalg.norm(photos.utm_m[asked][:, None] - photos.utm_m[stored][None], axis=2)
    order = np.argsort(-(vectors[asked] @ vectors[stored].T), axis=1, kind="stable")
    right = np.take_along_axis(far <= THRESHOLD_M, order, axis=1)
    return {str(k): round(100 * float(right[:, :k].any(axis=1).mean()), 2) for k in (1, 5, 10)}


if __name__ == "__main__":
    main()
