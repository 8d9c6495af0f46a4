"""Extraction, matching and the training step on a GPU, each against its plain formulation there.

    python -m benchmarks.bench_accelerator extract --models vitl
    python -m benchmarks.bench_accelerator matching
    python -m benchmarks.bench_accelerator train --models vit

The variants take turns in one process and the results are medians; all synchronise with the device before
reading the clock. Each model's results are written before the next one begins. `--device cpu` is a trial run;
use few images.

`extract`: images/s with prepared photos, with decoded ones that the device resizes, and with features encoded
there; and of the network alone, whose input lies on the device and whose output stays there. Its operations
over the time are its share of the peak, which is the rate of a large bfloat16 product in the same process.
Plain is the float32 module as trained, in torch's default memory layout, with copies there and back in turn.
`matching`: the kernel, the blocks that take its place without Triton, and plainly one product, two argmaxes
and a loop over the candidates. `train`: as `bench_train`, which describes the plain formulation.
"""

# ruff: noqa: E402 (what follows `sleep_while_waiting` imports torch, whose threads read their setting then)

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from models.runtime.threads import sleep_while_waiting

sleep_while_waiting()

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bench_extract import ROUNDS, make_network
from benchmarks.bench_matching import draw_features, plain
from benchmarks.drawn_photos import PHOTO
from benchmarks.floors import product_rate
from benchmarks.results import command_line, make_parser, read_results, write_results
from benchmarks.timing import medians
from benchmarks.train_formulations import FORMULATIONS, IMAGES, INPUT, OURS, RECOMPUTED, WEIGHTS, make_step
from models.extractor import Extractor
from models.feature_encoder import FeatureEncoder
from models.images.preprocess import prepare
from models.matching import triton_gpu as matching_triton
from models.matching.blocks import partners_by_blocks
from models.matching.mutual import mutual_nn_count
from models.runtime.compiled import CannotCompile
from models.runtime.execution import best_device
from storage.features.encodings import FeatureCodec

PLAIN, BATCH = "plain float32", 64
Ways = dict[str, Callable[[], object]]


def extract(name: str, device: torch.device, rounds: int, images: int) -> dict[str, Any]:
    """Compare the images/s of one model."""
    network, card = make_network(name)
    pre = card.preprocessing
    generator = np.random.default_rng(0)
    photos = [generator.integers(0, 256, (PHOTO[1], PHOTO[0], 3), dtype=np.uint8) for _ in range(images)]
    prepared = [prepare(photo, pre) for photo in photos]
    exact = Extractor(copy.deepcopy(network), card, device=device, dtype=torch.float32)
    half = Extractor(copy.deepcopy(network), card, device=device, dtype=torch.bfloat16)
    fast = Extractor(copy.deepcopy(network), card, device=device, dtype=torch.bfloat16, compile_network=True)
    encode = FeatureEncoder(FeatureCodec(card.stored_as("int4")), device=device)
    ways: Ways = {
        PLAIN: plain_extraction(network, prepared, exact),
        "float32": lambda: exact.extract_prepared(prepared),
        "bf16": lambda: half.extract_prepared(prepared),
        "bf16, network alone": network_alone(half, images),
    }
    figures: dict[str, Any] = {"images": images, "rounds": rounds}
    try:
        fast.warm_up(images)
        ways |= {
            "bf16, compiled": lambda: fast.extract_prepared(prepared),
            "bf16, compiled, decoded photos": lambda: fast.extract(photos),
            "bf16, compiled, features as int4": lambda: fast.extract_encoded(prepared, encode),
            "bf16, compiled, network alone": network_alone(fast, images),
        }
    except CannotCompile as error:
        figures["compiled"] = str(error)
    times = medians(ways, rounds)
    peak = product_rate(torch.bfloat16, device, side=1024 if device.type == "cpu" else 8192)
    # Counted by shapes on the network as loaded: layers packed for oneDNN would not be counted.
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(network).to("meta")(torch.empty(1, 3, pre.height, pre.width, device="meta"))
    gflop = counter.get_total_flops() / 1e9
    return figures | {
        "gflop_image": gflop,
        "bf16_product_gflops": round(peak),
        "ways": {
            way: {
                "images_per_s": round(images / seconds, 1),
                "times_faster": round(times[PLAIN] / seconds, 2),
                "share_of_peak": round(gflop * images / seconds / peak, 3),
            }
            for way, seconds in times.items()
        },
    }


def plain_extraction(network: Any, prepared: list[Any], exact: Extractor) -> Callable[[], object]:
    module = copy.deepcopy(network).to(exact.device).to(memory_format=torch.contiguous_format)
    for weights in module.parameters():
        weights.requires_grad_(False)

    def run() -> None:
        for at in range(0, len(prepared), BATCH):
            pixels = torch.from_numpy(np.stack(prepared[at : at + BATCH])).to(exact.device)
            inputs = (pixels.permute(0, 3, 1, 2).float() - exact._mean) / exact._scale
            for output in module(inputs.contiguous()):
                output.cpu()

    return run


def network_alone(extractor: Extractor, images: int) -> Callable[[], object]:
    pre = extractor.card.preprocessing
    step = min(images, BATCH)
    inputs = torch.randn(step, 3, pre.height, pre.width, device=extractor.device)
    inputs = inputs.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run() -> None:
        with torch.autocast(extractor.device.type, dtype=torch.bfloat16):
            for at in range(0, images, step):
                extractor._forward(inputs[: images - at])
        wait_for(extractor.device)

    return run


def wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


def matching(cells: int, channels: int, device: torch.device, rounds: int, count: int) -> dict[str, Any]:
    """Compare the milliseconds that `count` candidates of one query take, and of eight queries together."""
    query, candidates = (features.to(device) for features in draw_features(count, cells, channels))
    halves, others = (query.bfloat16(), candidates.bfloat16()), candidates.float()
    several = halves[0].expand(8, -1, -1).contiguous(), halves[1].expand(8, -1, -1, -1).contiguous()
    ways: Ways = {
        "plain": lambda: plain(query, others),
        "bf16": lambda: mutual_nn_count(*halves),
        "float16": lambda: mutual_nn_count(query.half(), candidates),
        "fast": lambda: mutual_nn_count(query, candidates, precision="fast"),
        "exact": lambda: mutual_nn_count(query, candidates),
        "exact, in blocks": lambda: partners_by_blocks(query, candidates),
    }
    kernel = device.type == "cuda"
    if kernel:
        ways["bf16, 8 queries"] = lambda: matching_triton.partners_of_queries(*several)
    # Equal except for near ties.
    few = mutual_nn_count(query, candidates[:4]).tolist()
    assert max(abs(a - b) for a, b in zip(few, plain(query, others[:4]), strict=True)) <= 1
    times = medians({way: waited(run, device) for way, run in ways.items()}, rounds)
    assert not matching_triton._REFUSED, (
        "the kernel could not be used: the results would not be those of the kernel"
    )
    peak = product_rate(torch.bfloat16, device, side=8192 if kernel else 1024)
    gflop = 2 * count * cells**2 * channels / 1e9
    figures: dict[str, Any] = {"candidates": count, "cells": cells, "channels": channels, "rounds": rounds}
    figures |= {"kernel": kernel, "bf16_product_gflops": round(peak), "ways": {}}
    for way, seconds in times.items():
        queries = 8 if way.endswith("queries") else 1
        figures["ways"][way] = {
            "ms_a_query": round(1e3 * seconds / queries, 3),
            "times_faster": round(queries * times["plain"] / seconds, 2),
            "share_of_peak": round(queries * gflop / seconds / peak, 3),
        }
        if kernel:
            figures["ways"][way]["extra_mib"] = round(peak_mib(ways[way]), 1)
    return figures


def waited(run: Callable[[], object], device: torch.device) -> Callable[[], object]:
    def whole() -> None:
        run()
        wait_for(device)

    return whole


def peak_mib(run: Callable[[], object]) -> float:
    """Return the peak of a CUDA device's memory while something runs, above what was allocated before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def train(name: str, device: torch.device, rounds: int) -> dict[str, Any]:
    """Compare a step in bf16 and fp32 with the plain formulations in fp32."""
    cases = {f"{which}, {p}": (which, p) for which in (OURS, RECOMPUTED) for p in ("bf16", "fp32")}
    cases |= {which: (which, "fp32") for which in (INPUT, WEIGHTS)}
    assert {which for which, _ in cases.values()} == set(FORMULATIONS)
    steps = {
        label: make_step(name, which, device=str(device), precision=p) for label, (which, p) in cases.items()
    }
    times = medians({label: waited(step, device) for label, step in steps.items()}, rounds)
    rows: dict[str, Any] = {}
    for label, step in steps.items():
        rows[label] = {"images_per_s": round(IMAGES / times[label], 1)}
        if device.type == "cuda":
            rows[label]["peak_mib"] = round(peak_mib(step))
    return {"images_a_step": IMAGES, "rounds": rounds, "ways": rows}


def main() -> None:
    """Measure one part and put it into the results, model by model."""
    parser = make_parser(__doc__, "accelerator.json")
    parser.add_argument("part", choices=("extract", "matching", "train"))
    parser.add_argument("--models", nargs="+", help="conv, vits and vitl for extract, conv and vit for train")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=256, help="for extract")
    parser.add_argument("--candidates", type=int, default=100, help="for matching")
    parser.add_argument("--device", type=torch.device, help="default: the accelerator")
    args = parser.parse_args()
    device = args.device or best_device()
    if device.type == "cpu" and args.device is None:
        parser.error("no accelerator available: pass --device cpu for a trial run")
    known = {"extract": list(ROUNDS), "train": ["conv", "vit"], "matching": []}[args.part]
    if unknown := set(args.models or ()) - set(known):
        parser.error(
            f"{args.part} does not support {', '.join(sorted(unknown))}, only {', '.join(known) or 'none'}"
        )
    sizes = {"SelaVPR's": (3721, 128), "default model's": (196, 112)}
    if args.part == "extract":
        work: Any = {name: (extract, name, device, args.rounds, args.images) for name in args.models or known}
    elif args.part == "train":
        work = {name: (train, name, device, args.rounds) for name in args.models or known}
    else:
        work = {name: (matching, *size, device, args.rounds, args.candidates) for name, size in sizes.items()}
    for name, (measure, *arguments) in work.items():
        row = measure(*arguments) | {
            "command": command_line(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            "torch": torch.__version__,
        }
        results = read_results(args.out)
        if not isinstance(results.get(args.part), dict):
            results[args.part] = {}
        results[args.part][name] = row
        write_results(args.out, results, finished=name == list(work)[-1])
        print(name, json.dumps(row, indent=1), flush=True)


if __name__ == "__main__":
    main()
