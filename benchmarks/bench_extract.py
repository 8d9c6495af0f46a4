"""Extraction: placeray's extractor against the plain float32 module, part by part, and the floor.

    python -m benchmarks.bench_extract
    python -m benchmarks.bench_extract --models conv vits --rounds 3

Plain is a straightforward implementation: Pillow decodes and resizes the photo, and the module runs as it was
trained, in torch's default memory layout. Both take turns in one process on the same photos, in batches of
eight, with as many threads; where the processor has bfloat16, so does placeray with `--precision bf16`. ViT
shapes have random weights: their speed does not depend on them. `bench_accelerator` measures what a GPU does.
"""

from __future__ import annotations

import copy
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.drawn_photos import PHOTO, make_photos
from benchmarks.floors import product_rate
from benchmarks.machine import describe_machine
from benchmarks.results import command_line, make_parser, read_results, write_results
from benchmarks.subprocesses import apart
from benchmarks.timing import medians
from models.card import make_card
from models.extractor import Extractor
from models.images.decoder import decode_image
from models.images.preprocess import prepare
from models.networks.architecture import Architecture
from models.networks.selavpr import SelaVPR
from models.runtime.execution import native_dtype
from models.weights import load_network
from storage.card import Card

BATCH, SIDE = 8, 224
ROUNDS = {"conv": 12, "vits": 5, "vitl": 3}


def make_network(name: str) -> tuple[Any, Card]:
    if name == "conv":
        return load_network("efficientnet-lite0")
    torch.manual_seed(0)
    network = SelaVPR(Architecture.of_size(name[-1]), local_head=True).eval()
    return network, make_card(network, weights_sha256="0" * 64)


def measure(name: str, rounds: str) -> dict[str, Any]:
    """Compare one model, with one thread and with all, in this process."""
    plain, card = make_network(name)
    extractor = Extractor(copy.deepcopy(plain), card, device="cpu")
    plain.to(memory_format=torch.contiguous_format)
    pre = card.preprocessing
    with tempfile.TemporaryDirectory() as scratch:
        files = [
            path.read_bytes()
            for path in sorted(make_photos(Path(scratch) / "p", 64, PHOTO).iterdir())[:BATCH]
        ]
    prepared = np.stack([prepare(decode_image(data).pixels, pre) for data in files])

    def plain_prepare() -> torch.Tensor:
        photos = [
            Image.open(io.BytesIO(data)).convert("RGB").resize((pre.width, pre.height), 2) for data in files
        ]
        return torch.stack([torch.from_numpy(np.array(photo)).permute(2, 0, 1) for photo in photos])

    mean, std = torch.tensor(pre.mean).view(3, 1, 1), torch.tensor(pre.std).view(3, 1, 1)
    tensors = plain_prepare().contiguous()

    def plain_forward() -> Any:
        # Frozen weights, but not inference mode: there the module uses placeray's own optimisations.
        for weights in plain.parameters():
            weights.requires_grad_(False)
        return plain((tensors / 255 - mean) / std)

    result: dict[str, Any] = {"photo": PHOTO, "batch": BATCH, "rounds": int(rounds)}
    parts = {
        "plain": plain_prepare,
        "placeray": lambda: [prepare(decode_image(data).pixels, pre) for data in files],
    }
    result["decode_and_resize_ms"] = {k: round(1e3 * v / BATCH, 2) for k, v in medians(parts, 8).items()}
    with FlopCounterMode(display=False) as counter:
        plain_forward()
    result["gflop_image"] = round(counter.get_total_flops() / BATCH / 1e9, 2)
    theirs, ours = plain_forward()[0].detach().numpy(), extractor.extract_prepared(prepared)
    if pre.resize == "pil_bilinear":  # else the two resize differently
        result["largest_difference"] = float(np.abs(theirs - ours[0]).max())
    ways: dict[str, Callable[[], Any]] = {
        "plain": plain_forward,
        "placeray": lambda: extractor.extract_prepared(prepared),
    }
    types = {"placeray": torch.float32}
    if native_dtype("cpu") == torch.bfloat16:
        half = Extractor(copy.deepcopy(plain), card, device="cpu", dtype=torch.bfloat16)
        ways["bf16"], types["bf16"] = (lambda: half.extract_prepared(prepared)), torch.bfloat16
        result["bf16_cosines"] = cosines(ours, half.extract_prepared(prepared))
    for threads in (1, os.cpu_count() or 1):
        torch.set_num_threads(threads)
        times = medians(ways, int(rounds))
        row = {f"{way}_ms": round(1e3 * seconds / BATCH, 2) for way, seconds in times.items()}
        for way, dtype in types.items():
            rate = product_rate(dtype)
            row[f"{way}_times_faster"] = round(times["plain"] / times[way], 2)
            row[f"{way}_product_gflops"] = round(rate, 1)
            row[f"{way}_floor_ms"] = round(1e3 * result["gflop_image"] / rate, 2)
        result[f"{threads} threads"] = row
    return result


def cosines(one: tuple[np.ndarray, ...], other: tuple[np.ndarray, ...]) -> dict[str, float]:
    """Return the minimum cosine of descriptors, and minimum and mean of local features."""
    descriptors, features = ((a * b).sum(axis=-1) for a, b in zip(one, other, strict=True))
    return {
        "descriptor_least": float(descriptors.min()),
        "feature_least": float(features.min()),
        "feature_mean": float(features.mean()),
    }


def main() -> None:
    """Measure each model in a process of its own and put it into the results."""
    parser = make_parser(__doc__, "extract.json")
    parser.add_argument("--models", nargs="+", choices=list(ROUNDS), default=list(ROUNDS))
    parser.add_argument("--rounds", type=int, help="default: 12 for conv, 5 for vits, 3 for vitl")
    args = parser.parse_args()
    results = {"models": {}} | read_results(args.out)
    bf16 = native_dtype("cpu") == torch.bfloat16
    results |= {"command": command_line(), "machine": describe_machine(bf16=bf16)}
    for name in args.models:
        quiet = {"OMP_WAIT_POLICY": "passive"}  # as in placeray's own processes
        row = apart(measure, name, args.rounds or ROUNDS[name], environment=quiet)
        results["models"][name] = row
        print(name, json.dumps(row, indent=1), flush=True)
    write_results(args.out, results)


if __name__ == "__main__":
    main()
