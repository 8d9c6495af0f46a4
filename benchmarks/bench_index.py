"""The whole index pipeline against the bare extractor loop, its memory, and its commits as the store grows.

    make bench-index
    python -m benchmarks.bench_index --counts 400 4000
    python -m benchmarks.bench_index --counts 4000 --learning     learned descriptors against the model's own

The bare loop holds the decoded photos in memory and does nothing but `Extractor.extract` in batches, with as
many torch threads as there are cores. The pipeline reads, hashes, decodes, extracts, writes and commits. Both
see the same generated photos in the same run, and compute in the same precision.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.results import command_line, make_parser, read_results, write_results
from benchmarks.subprocesses import apart, run_watched

BATCH = 32
COMMITS = 40


def main() -> None:
    parser = make_parser(__doc__, "index.json")
    parser.add_argument("--counts", type=int, nargs="+", default=[400, 4000])
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32"])
    parser.add_argument("--photos", type=Path, help="folder that keeps the generated photos for another run")
    parser.add_argument("--learning", action="store_true", help="only what learned descriptors cost")
    parser.add_argument("--rounds", type=int, default=2, help="of each way, with --learning")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="placeray-bench-") as scratch:
        photos = args.photos or Path(scratch)
        if args.learning:
            costs = [learning(count, args.rounds, photos, Path(scratch)) for count in args.counts]
            show_learning(costs)
            kept = {"command": command_line(), "machine": describe_machine(), "results": costs}
            write_results(args.out, read_results(args.out) | {"learning": kept})
            return
        results = [
            run(count, precision, photos, Path(scratch))
            for count in args.counts
            for precision in args.precisions
        ]
    report(results, args.out)


def learning(count: int, rounds: int, photos: Path, scratch: Path) -> dict[str, Any]:
    """Index the same photos with learned descriptors and with the model's own, in turns.

    Returns:
        Ratios of the images per second of a whole run, which ends with the learning, and of its steady part;
        medians of the rounds.
    """
    city = drawn(photos, count)
    ratios: dict[str, list[float]] = {"images_per_s": [], "steady_images_per_s": []}
    for turn in range(rounds):
        ways = ("gem", "learned") if turn % 2 else ("learned", "gem")
        speed = {way: whole(city, count, "fp32", scratch / f"{way}{count}-{turn}", way) for way in ways}
        for name, values in ratios.items():
            values.append(speed["learned"][name] / speed["gem"][name])
    medians = {f"{name}_learned_over_gem": statistics.median(values) for name, values in ratios.items()}
    return {"images": count, "rounds": rounds, **medians, "ratios": ratios}


def show_learning(costs: list[dict[str, Any]]) -> None:
    for cost in costs:
        print(f"\n{cost['images']} images, learned descriptors over the model's own (goal 0.95)")
        print(f"  whole run        {cost['images_per_s_learned_over_gem']:.3f}")
        print(f"  after the start  {cost['steady_images_per_s_learned_over_gem']:.3f}")


def drawn(photos: Path, count: int) -> Path:
    from pipelines.demo.dataset import draw_city

    city = photos / f"city{count}"
    if not city.is_dir():
        draw_city(city, seed=1, database_images=count, query_images=8)
    return city


def run(count: int, precision: str, photos: Path, scratch: Path) -> dict[str, Any]:
    city = drawn(photos, count)
    images = sorted((city / "images/test/database").glob("*.jpg"))
    # Before and after: the machine's speed drifts within a run of minutes.
    before = apart(bare_loop, precision, *images[:400])
    pipeline = whole(city, len(images), precision, scratch / f"{count}{precision}")
    after = apart(bare_loop, precision, *images[:400])
    rates = [before["extract_images_per_s"], after["extract_images_per_s"]]
    loops = [before["loop_images_per_s"], after["loop_images_per_s"]]
    return {
        "images": len(images),
        "precision": precision,
        "bare_extract_images_per_s": rates,
        "bare_decode_and_extract_images_per_s": loops,
        **pipeline,
        "steady_over_bare_extract": pipeline["steady_images_per_s"] / (sum(rates) / 2),
        "steady_over_bare_loop": pipeline["steady_images_per_s"] / (sum(loops) / 2),
        "whole_over_bare_extract": pipeline["images_per_s"] / (sum(rates) / 2),
    }


def bare_loop(precision: str, *paths: str) -> dict[str, float]:
    """Extract photos without the pipeline, in this process."""
    from models.runtime.threads import sleep_while_waiting

    sleep_while_waiting()
    import torch

    from models.images.decoder import decode_image
    from models.runtime.execution import Execution
    from models.weights import load_extractor

    torch.set_num_threads(os.cpu_count() or 1)
    extractor = load_extractor("efficientnet-lite0", execution=Execution(precision=precision))
    data = [Path(path).read_bytes() for path in paths]
    pixels = [decode_image(one).pixels for one in data]
    extractor.extract(pixels[:BATCH])
    started = time.perf_counter()
    for at in range(0, len(pixels), BATCH):
        extractor.extract(pixels[at : at + BATCH])
    extract_s = time.perf_counter() - started
    started = time.perf_counter()
    for at in range(0, len(data), BATCH):
        extractor.extract([decode_image(one).pixels for one in data[at : at + BATCH]])
    loop_s = time.perf_counter() - started
    return {"extract_images_per_s": len(data) / extract_s, "loop_images_per_s": len(data) / loop_s}


def whole(
    city: Path, count: int, precision: str, scratch: Path, aggregation: str = "learned"
) -> dict[str, Any]:
    """Run `placeray index` as a user does and measure it from outside."""
    scratch.mkdir(parents=True)
    trace, store = scratch / "trace", scratch / "store"
    command = [sys.executable, "-m", "pipelines.index", str(city), "--store", str(store), "--json", "--quiet"]
    command += ["--commit-every", str(max(10, count // COMMITS)), "--batch-size", str(BATCH)]
    command += ["--trace", str(trace), "--extractors", str(os.cpu_count() or 1), "--precision", precision]
    command += ["--aggregation", aggregation]
    out, peak_mb = run_watched(command)
    result = json.loads(out)
    spans = [json.loads(line) for line in trace.read_text().splitlines()]
    commits = [s["end_s"] - s["begin_s"] for s in spans if s["stage"] == "commit"]
    fifth = max(1, len(commits) // 5)
    extracts = [s for s in spans if s["stage"] == "extract"]
    # From the end of the first batch to the end of the last: start-up of Ray and the model left out.
    first = min(extracts, key=lambda s: s["end_s"])
    steady = (count - first["rows"]) / max(1e-9, max(s["end_s"] for s in extracts) - first["end_s"])
    return {
        "seconds": result["seconds"],
        "images_per_s": result["images_per_s"],
        "steady_images_per_s": steady,
        "busy_s": {
            stage: sum(s["end_s"] - s["begin_s"] for s in spans if s["stage"] == stage)
            for stage in ("decode", "extract", "write", "commit")
        },
        "commits": len(commits),
        "commit_first_ms": 1e3 * sorted(commits[:fifth])[fifth // 2],
        "commit_last_ms": 1e3 * sorted(commits[-fifth:])[fifth // 2],
        "peak_mb": peak_mb,
    }


def report(results: list[dict[str, Any]], out: Path) -> None:
    for result in results:
        print(f"\n{result['images']} images, efficientnet-lite0, {result['precision']}, batch {BATCH}")
        ratio = result["commit_last_ms"] / result["commit_first_ms"]
        rows = {
            "bare extract loop, images/s": " and ".join(
                f"{r:.1f}" for r in result["bare_extract_images_per_s"]
            ),
            "bare decode+extract loop, images/s": " and ".join(
                f"{r:.1f}" for r in result["bare_decode_and_extract_images_per_s"]
            ),
            "pipeline after the first batch, images/s": f"{result['steady_images_per_s']:.1f}",
            "pipeline with Ray's and the model's start, images/s": f"{result['images_per_s']:.1f}",
            "steady pipeline over bare extract (goal 0.9)": f"{result['steady_over_bare_extract']:.3f}",
            "steady pipeline over bare decode+extract": f"{result['steady_over_bare_loop']:.3f}",
            "commits": str(result["commits"]),
            "commit, median of the first fifth, ms": f"{result['commit_first_ms']:.1f}",
            "commit, median of the last fifth, ms": f"{result['commit_last_ms']:.1f}",
            "last over first commit (goal 1.2)": f"{ratio:.2f}",
            "peak unshared memory, MB": str(result["peak_mb"]),
        }
        for name, value in rows.items():
            print(f"  {name:<54} {value}")
    alike = [result for result in results if result["precision"] == results[0]["precision"]]
    if len(alike) > 1:
        few, many = alike[0]["peak_mb"], alike[-1]["peak_mb"]
        growth = {name: round(many[name] / few[name], 2) for name in few if name in many}
        print(f"\npeak memory at {alike[-1]['images']} over {alike[0]['images']} images: {growth}")
    measured = {"command": command_line(), "machine": describe_machine(), "results": results}
    write_results(out, read_results(out) | measured)


if __name__ == "__main__":
    main()
