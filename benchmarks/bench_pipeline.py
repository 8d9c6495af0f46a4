"""The index pipeline around the model: throughput, bytes moved, commits and memory.

    python -m benchmarks.bench_pipeline feed
    python -m benchmarks.bench_pipeline commit
    python -m benchmarks.bench_pipeline memory

A simulated accelerator takes the model's place: an actor that sleeps as long as the batch would take and
returns random vectors. `feed` runs it as fast as it can, which shows what one core decodes and writes, and
then at two thirds of that, which shows whether the accelerator waits. `commit` measures the driver's commits
alone. `memory` compares 1,000 with 20,000 photos. Each part fills its own key of the JSON file. `bench_index`
compares the whole pipeline with the bare extractor.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.drawn_photos import PHOTO, make_photos
from benchmarks.drawn_rows import draw_rows
from benchmarks.machine import describe_machine
from benchmarks.results import RESULTS, command_line, make_parser, read_results, write_results
from benchmarks.simulated_accelerator import card_of, simulate
from benchmarks.subprocesses import command_of, run_watched
from benchmarks.timeline import draw_timeline
from storage.store import Store

TIMELINE = RESULTS / "pipeline_timeline.svg"


def watch_simulation(
    photos: Path, shape: str, features: str, rate: float, *, timeline: Path | None = None
) -> dict[str, Any]:
    """Simulate in a process of its own and watch its memory."""
    with tempfile.TemporaryDirectory(prefix="placeray-bench-") as scratch:
        out, peak_mb = run_watched(command_of(simulate, photos, scratch, shape, features, rate))
        figures: dict[str, Any] = json.loads(out.splitlines()[-1])
        print(figures, file=sys.stderr, flush=True)
        if timeline is not None:
            lines = Path(scratch, "trace").read_text().splitlines()
            timeline.write_text(draw_timeline([json.loads(line) for line in lines]))
    return figures | {"peak_mb": peak_mb}


def feed() -> dict[str, Any]:
    """Measure how many cores feed one accelerator."""
    results = []
    with tempfile.TemporaryDirectory(prefix="placeray-bench-") as scratch:
        for shape, features, count in (
            ("default", "float16", 5000),
            ("large", "float16", 3000),
            ("large", "int4-pca64", 5000),
        ):
            photos = make_photos(Path(scratch) / shape / features, count, PHOTO)
            row: dict[str, Any] = {"free": watch_simulation(photos, shape, features, 1e6)}
            row["core_s_per_image"] = sum(row["free"]["core_ms_per_image"].values()) / 1e3
            if shape == "default":
                rate = round(row["free"]["images_per_s_to_last_commit"] * 2 / 3)
                row["paced"] = watch_simulation(photos, shape, features, rate, timeline=TIMELINE)
                row["accelerator_busy"] = round(row["paced"]["images_per_s"] / rate, 3)
            results.append(row)
    return {"photo": PHOTO, "rows": results}


def memory() -> dict[str, Any]:
    """Measure the peaks of unshared memory at 1,000 and 20,000 small photos."""
    results = {}
    for count in (1000, 20_000):
        with tempfile.TemporaryDirectory(prefix="placeray-bench-") as scratch:
            photos = make_photos(Path(scratch) / "photos", count, (160, 120))
            results[str(count)] = watch_simulation(photos, "default", "float16", 1e6)
    few, many = (results[key]["peak_mb"] for key in results)
    results["growth"] = {name: round(many[name] / few[name], 2) for name in few if name in many}
    return results


def commit() -> dict[str, Any]:
    """Return the rows per second that the driver commits durably to disk."""
    results = {}
    for per_commit, total in ((256, 262_144), (1024, 32_768), (8192, 131_072), (32_768, 262_144)):
        with tempfile.TemporaryDirectory(prefix="placeray-bench-") as scratch:
            store = Store.create(scratch, card_of("large", "int2"))
            batches, seconds = draw_rows(store, per_commit, total), []
            with store.lease():
                for batch in batches:
                    began = time.perf_counter()
                    store.commit(batch)
                    seconds.append(time.perf_counter() - began)
        some = max(4, len(seconds) // 10)
        results[str(per_commit)] = {
            "rows": total,
            "rows_per_s": round(total / sum(seconds)),
            "commits": len(seconds),
            "first_ms": round(1e3 * statistics.median(seconds[:some]), 1),
            "last_ms": round(1e3 * statistics.median(seconds[-some:]), 1),
        }
        print(per_commit, results[str(per_commit)], file=sys.stderr, flush=True)
    return {"goal_rows_per_s": 50_000, "rows_a_commit": results}


def main() -> None:
    """Measure one part and put it into the results."""
    parser = make_parser(__doc__, "pipeline.json")
    parser.add_argument("part", choices=("feed", "commit", "memory"))
    args = parser.parse_args()
    measure = {"feed": feed, "commit": commit, "memory": memory}[args.part]
    results = read_results(args.out) | {"machine": describe_machine()}
    results[args.part] = {"command": command_line(), **measure()}
    write_results(args.out, results)
    print(json.dumps(results[args.part], indent=1))


if __name__ == "__main__":
    main()
