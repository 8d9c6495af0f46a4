"""The training step against the plain formulation of the published recipe: speed, memory, and the floors.

    python -m benchmarks.bench_train
    python -m benchmarks.bench_train --models vit --rounds 3
    python -m benchmarks.bench_train --models side    SelaVPR++ beside SelaVPR

A step is 4 queries with a positive and two negatives each, 16 photos of 224 x 224: forwards, both losses,
backwards, Adam. Formulations take turns in one process; memory is measured in a process of its own for each.
`benchmarks/train_formulations.py` describes the plain formulation. With one thread, seconds are the process's
own CPU seconds, so that other processes disturb less. `bench_accelerator` measures a GPU.
"""

# ruff: noqa: E402 (what follows `sleep_while_waiting` imports torch, whose threads read their setting then)

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from models.runtime.threads import sleep_while_waiting

sleep_while_waiting()

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.floors import blas_gflop_per_s, copy_gb_per_s
from benchmarks.machine import describe_machine
from benchmarks.results import command_line, make_parser, read_results, write_results
from benchmarks.subprocesses import apart
from benchmarks.timing import alternate
from benchmarks.train_formulations import (
    FORMULATIONS,
    IMAGES,
    INPUT,
    OURS,
    RECOMPUTED,
    WEIGHTS,
    make_model,
    make_step,
    training_photos,
)
from benchmarks.train_memory import measure_step_memory
from benchmarks.train_side_path import compare_side_path

RATE_GOAL, MEMORY_GOAL = 1.5, 0.5


def main() -> None:
    parser = make_parser(__doc__, "train.json")
    parser.add_argument("--models", nargs="+", choices=["conv", "vit", "side"], default=["conv", "vit"])
    parser.add_argument("--rounds", type=int, default=5, help="steps of each formulation, in turn")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    machine = describe_machine(
        threads=args.threads,
        gflop_per_s=blas_gflop_per_s(),
        copy_gb_per_s=copy_gb_per_s(),
        torch=torch.__version__,
    )
    results = {}
    for name in args.models:
        if name == "side":
            results[name] = compare_side_path(args.rounds, clock_of(args.threads))
        else:
            results[name] = run(name, args.rounds, args.threads)
    report(machine, results, args.out)


def run(name: str, rounds: int, threads: int) -> dict[str, Any]:
    steps = {which: make_step(name, which) for which in FORMULATIONS}
    same = compare(steps)
    seconds = alternate(steps, rounds, clock=clock_of(threads))
    operations = {}
    for which, step in steps.items():
        with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: added_product}) as counter:
            step()
        operations[which] = counter.get_total_flops()
    steps.clear()
    rows = {
        which: {
            "images_per_s": IMAGES / median(seconds[which]),
            "gflop": operations[which] / 1e9,
            **apart(measure_step_memory, name, which),
        }
        for which in FORMULATIONS
    }
    ratios = {
        f"{ours} over {plain}": {
            # Of neighbouring steps: the machine's speed drifts.
            "images_per_s": median(b / a for a, b in zip(seconds[ours], seconds[plain], strict=True)),
            "peak": rows[ours]["peak_mib"] / rows[plain]["peak_mib"],
            "kept": rows[ours]["kept_mib"] / rows[plain]["kept_mib"],
        }
        for ours in (OURS, RECOMPUTED)
        for plain in (INPUT, WEIGHTS)
    }
    return {"rows": rows, "ratios": ratios, "same": same, "mining": mining(name, rounds, threads)}


def added_product(_: Any, left: Any, right: Any, **__: Any) -> int:
    """Return the operations of a product added in place, which torch's counter leaves out."""
    return 2 * left[0] * left[1] * right[1]  # type: ignore[no-any-return]


def clock_of(threads: int) -> Callable[[], float]:
    return time.process_time if threads == 1 else time.perf_counter


def compare(steps: dict[str, Any]) -> dict[str, Any]:
    """Return the losses of each formulation's first step, and how far gradients are from placeray's."""
    losses = {which: step() for which, step in steps.items()}
    wanted = {name: p.grad for name, p in steps[OURS].model.named_parameters() if p.grad is not None}
    apart = {}
    for which, step in steps.items():
        parameters = dict(step.model.named_parameters())
        far = [
            ((parameters[n].grad - g).norm() / g.norm().clamp(min=1e-12)).item() for n, g in wanted.items()
        ]
        apart[which] = max(far)
    return {"losses": losses, "largest_relative_difference_of_a_gradient": apart}


def mining(name: str, rounds: int, threads: int) -> dict[str, float]:
    """Return images/s of describing photos for mining, and of computing local features with it."""
    model = make_model(name).eval()
    photos = torch.from_numpy(training_photos(name)).flatten(0, 1).permute(0, 3, 1, 2).float() / 255
    images = photos.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        jobs = {"describe": lambda: model.describe(images), "with local features": lambda: model(images)}
        seconds = alternate(jobs, 2 * rounds, clock=clock_of(threads))
    return {which: IMAGES / median(times) for which, times in seconds.items()}


def report(machine: dict[str, Any], results: dict[str, Any], out: Path) -> None:
    print(
        f"{machine['cpu']}, {machine['threads']} thread(s): {machine['gflop_per_s']:.0f} GFLOP/s in a matrix "
        f"product, {machine['copy_gb_per_s']:.1f} GB/s read and written in a copy"
    )
    for name, result in results.items():
        print(f"\n{name}: {IMAGES} photos per step")
        print(f"  {'':<26}{'images/s':>9}{'floor s':>9}{'step s':>8}{'peak MiB':>10}{'saved MiB':>10}")
        for which, row in result["rows"].items():
            moved = 2 * row["kept_mib"] / 1024 / machine["copy_gb_per_s"]
            # The counter overrates weight gradients of grouped convolutions by the number of groups.
            if which != WEIGHTS and "gflop" in row:
                row["floor_s"] = row["gflop"] / machine["gflop_per_s"] + moved
            floor = f"{row['floor_s']:.2f}" if "floor_s" in row else ""
            print(
                f"  {which:<26}{row['images_per_s']:>9.2f}{floor:>9}{IMAGES / row['images_per_s']:>8.2f}"
                f"{row['peak_mib']:>10.0f}{row['kept_mib']:>10.0f}"
            )
        for label, ratio in result["ratios"].items():
            if name == "side":
                print(f"  {label}: " + ", ".join(f"{value:.2f} {what}" for what, value in ratio.items()))
                continue
            fast, small = ratio["images_per_s"] >= RATE_GOAL, ratio["peak"] <= MEMORY_GOAL
            print(
                f"  {label}: {ratio['images_per_s']:.2f} times the images/s "
                f"(goal {RATE_GOAL}: {verdict(fast)}), "
                f"{ratio['peak']:.2f} of the peak (goal {MEMORY_GOAL}: {verdict(small)}), "
                f"{ratio['kept']:.2f} of the saved tensors"
            )
        if name == "side":
            continue
        apart = result["same"]["largest_relative_difference_of_a_gradient"]
        print(f"  gradients differ by up to {max(apart.values()):.1e} of their norm")
        rates = result["mining"]
        print("  mining, images/s: " + ", ".join(f"{rate:.1f} {which}" for which, rate in rates.items()))
    former = read_results(out)
    if set(results) == {"side"} and former:
        kept = {"command": former["command"], "machine": former["machine"]}
        write_results(out, {**kept, "results": former["results"] | results})
        return
    results = former.get("results", {}) | results
    write_results(out, {"command": command_line(), "machine": machine, "results": results})


def verdict(reached: bool) -> str:
    return "reached" if reached else "MISSED"


if __name__ == "__main__":
    main()
