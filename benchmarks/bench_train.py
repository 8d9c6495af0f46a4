"""The training step against the plain formulation of the published recipe: speed, memory, and the floors.

    python -m benchmarks.bench_train
    python -m benchmarks.bench_train --models vit --rounds 3

A step is 4 queries with a positive and two negatives each, 16 photos of 224 x 224: forwards, both losses,
backwards, Adam. Formulations take turns in one process; each one's memory is taken in a process of its own.
What is plain is told in `benchmarks/train_formulations.py`. With one thread, seconds are the process's own
CPU seconds, so that other processes disturb less. `bench_accelerator` measures what a GPU does.
"""

# ruff: noqa: E402 (what follows `sleep_while_waiting` imports torch, whose threads read their setting then)

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from models.runtime.threads import sleep_while_waiting

sleep_while_waiting()

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bench_index import cpu_name
from benchmarks.train_formulations import (
    FORMULATIONS,
    IMAGES,
    INPUT,
    OURS,
    RECOMPUTED,
    WEIGHTS,
    make_model,
    make_photos,
    make_step,
)

RESULTS = Path(__file__).parent / "results" / "train.json"
RATE_GOAL, MEMORY_GOAL = 1.5, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=["conv", "vit"], default=["conv", "vit"])
    parser.add_argument("--rounds", type=int, default=5, help="steps of each formulation, in turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    machine = {"cpu": cpu_name(), "cores": os.cpu_count(), "threads": args.threads, **floors_of_machine()}
    results = {name: run(name, args.rounds, args.threads) for name in args.models}
    report(machine, results, args.out)


def run(name: str, rounds: int, threads: int) -> dict[str, Any]:
    steps = {which: make_step(name, which) for which in FORMULATIONS}
    same = compare(steps)
    seconds = alternate({which: (lambda step=step: step()) for which, step in steps.items()}, rounds, threads)
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
            **memory_apart(name, which),
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


def clock(threads: int) -> float:
    return time.process_time() if threads == 1 else time.perf_counter()


def alternate(steps: dict[str, Callable[[], Any]], rounds: int, threads: int) -> dict[str, list[float]]:
    """Return the seconds of each, taken in turn, after a turn that does not count."""
    seconds: dict[str, list[float]] = {which: [] for which in steps}
    for turn in range(rounds + 1):
        for which, step in steps.items():
            started = clock(threads)
            step()
            if turn:
                seconds[which].append(clock(threads) - started)
    return seconds


def compare(steps: dict[str, Any]) -> dict[str, Any]:
    """Return the losses of each formulation's first step, and how far gradients are from placeray's."""
    losses = {which: step() for which, step in steps.items()}
    wanted = {name: p.grad for name, p in steps[OURS].model.named_parameters() if p.grad is not None}
    apart = {}
    for which, step in steps.items():
        found = dict(step.model.named_parameters())
        far = [((found[n].grad - g).norm() / g.norm().clamp(min=1e-12)).item() for n, g in wanted.items()]
        apart[which] = max(far)
    return {"losses": losses, "largest_relative_difference_of_a_gradient": apart}


def mining(name: str, rounds: int, threads: int) -> dict[str, float]:
    """Return images/s of describing photos for mining, and of computing local features with it."""
    model = make_model(name).eval()
    photos = torch.from_numpy(make_photos(name)).flatten(0, 1).permute(0, 3, 1, 2).float() / 255
    images = photos.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        jobs = {"describe": lambda: model.describe(images), "with local features": lambda: model(images)}
        seconds = alternate(jobs, 2 * rounds, threads)
    return {which: IMAGES / median(times) for which, times in seconds.items()}


def memory_apart(name: str, formulation: str) -> dict[str, float]:
    code = "import sys; from benchmarks.bench_train import measure_memory; measure_memory(*sys.argv[1:])"
    command = [sys.executable, "-c", code, name, formulation]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def measure_memory(name: str, formulation: str) -> None:
    """Print a step's resident peak above what was held before, and what is kept for the backward pass."""
    torch.set_num_threads(1)
    step: Any = make_step(name, formulation)
    # What is made once, such as Adam's moments, is made in a first step.
    step()
    step.model.zero_grad()
    give_memory_back()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = status_mib("VmRSS")
    step()
    peak = status_mib("VmHWM") - before
    own = {
        weights.untyped_storage().data_ptr() for weights in [*step.model.parameters(), *step.model.buffers()]
    }
    kept: dict[int, int] = {}
    keep_alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            keep_alive.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    print(json.dumps({"peak_mib": peak, "kept_mib": sum(kept.values()) / 2**20}))


def give_memory_back() -> None:
    import ctypes
    import gc

    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def status_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1024


def floors_of_machine() -> dict[str, float]:
    """Return the measured rate of a large matrix product, and of copying what no cache holds."""
    side = 1536
    a, b = torch.rand(side, side), torch.rand(side, side)
    source, target = torch.rand(1 << 25), torch.empty(1 << 25)
    threads = torch.get_num_threads()
    jobs: dict[str, Callable[[], Any]] = {"matmul": lambda: a @ b, "copy": lambda: target.copy_(source)}
    best = {which: min(times) for which, times in alternate(jobs, 5, threads).items()}
    return {
        "gflop_per_s": 2 * side**3 / best["matmul"] / 1e9,
        "copy_gb_per_s": 8 * 2**25 / best["copy"] / 1e9,
    }


def report(machine: dict[str, Any], results: dict[str, Any], out: Path) -> None:
    print(
        f"{machine['cpu']}, {machine['threads']} thread(s): {machine['gflop_per_s']:.0f} GFLOP/s in a matrix "
        f"product, {machine['copy_gb_per_s']:.1f} GB/s read and written in a copy"
    )
    for name, result in results.items():
        print(f"\n{name}: {IMAGES} photos a step")
        print(f"  {'':<26}{'images/s':>9}{'floor s':>9}{'step s':>8}{'peak MiB':>10}{'kept MiB':>10}")
        for which, row in result["rows"].items():
            moved = 2 * row["kept_mib"] / 1024 / machine["copy_gb_per_s"]
            # The counter overrates weight gradients of grouped convolutions by the number of groups.
            row["floor_s"] = None if which == WEIGHTS else row["gflop"] / machine["gflop_per_s"] + moved
            floor = "" if row["floor_s"] is None else f"{row['floor_s']:.2f}"
            print(
                f"  {which:<26}{row['images_per_s']:>9.2f}{floor:>9}{IMAGES / row['images_per_s']:>8.2f}"
                f"{row['peak_mib']:>10.0f}{row['kept_mib']:>10.0f}"
            )
        for label, ratio in result["ratios"].items():
            fast, small = ratio["images_per_s"] >= RATE_GOAL, ratio["peak"] <= MEMORY_GOAL
            print(
                f"  {label}: {ratio['images_per_s']:.2f} times the images/s "
                f"(goal {RATE_GOAL}: {verdict(fast)}), "
                f"{ratio['peak']:.2f} of the peak (goal {MEMORY_GOAL}: {verdict(small)}), "
                f"{ratio['kept']:.2f} of what is kept"
            )
        apart = result["same"]["largest_relative_difference_of_a_gradient"]
        print(f"  gradients differ by at most {max(apart.values()):.1e} of their norm")
        rates = result["mining"]
        print("  mining, images/s: " + ", ".join(f"{rate:.1f} {which}" for which, rate in rates.items()))
    out.parent.mkdir(parents=True, exist_ok=True)
    command = "python -m benchmarks.bench_train " + " ".join(sys.argv[1:])
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    told = {
        "command": command.strip(),
        "machine": machine | versions,
        "results": results,
    }
    out.write_text(json.dumps(told, indent=2) + "\n")
    print(f"written to {out}")


def verdict(reached: bool) -> str:
    return "reached" if reached else "MISSED"


if __name__ == "__main__":
    main()
