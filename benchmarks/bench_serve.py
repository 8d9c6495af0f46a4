"""The HTTP service under load, and the time that Ray Serve adds to a query.

    make bench-serve
    python -m benchmarks.bench_serve --rows 0 --seconds 5

Each service is started by `placeray serve` and queried over HTTP by clients in a process of their own, each
of which sends its next photo when the last answer has arrived. The same photos also go through QueryEngine in
one process. There are two stores: the demo city, and descriptors with the structure of a city, generated as
for `bench_search`, each row with the local features of one of the demo city's photos.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.results import command_line, make_parser, write_results
from benchmarks.serve_load import STAGES, percentiles, send_load
from benchmarks.serve_stores import demo_city, generate_store
from benchmarks.service_process import served
from benchmarks.subprocesses import apart

THROUGHPUT_MODE = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(64 << 20),
}
# What of it opens no port: all code in one event loop, logs in blocks.
ONE_LOOP = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
}
SERVICES: dict[str, tuple[list[str], dict[str, str]]] = {
    "compact": ([], {}),
    "compact, batch 1": (["--max-batch", "1"], {}),
    "compact, all cores": (["--threads", str(os.cpu_count())], {}),
    "split": (["--topology", "split"], {}),
    "compact, one loop": ([], ONE_LOOP),
    "split, one loop": (["--topology", "split"], ONE_LOOP),
    "compact, throughput mode": ([], THROUGHPUT_MODE),
    "split, throughput mode": (["--topology", "split"], THROUGHPUT_MODE),
}
ON_LARGE = ("compact", "split")


def main() -> None:
    parser = make_parser(__doc__, "serve.json")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=8.0, help="for each concurrency")
    parser.add_argument("--rows", type=int, default=100_000, help="of the generated store; 0: none")
    parser.add_argument("--services", nargs="+", choices=list(SERVICES), default=list(SERVICES))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="placeray-bench-") as scratch:
        city, photos = demo_city(Path(scratch))
        results = [measure("demo city", city, photos, name, args) for name in args.services]
        if args.rows:
            large = generate_store(city, Path(scratch, "large"), args.rows)
            names = [name for name in args.services if name in ON_LARGE]
            results += [measure(f"{args.rows:,} rows", large, photos, name, args) for name in names]
        extractor = bare_extractor(photos)
    report(results, extractor, args.out)


def measure(
    store_name: str, store: str, photos: list[Path], name: str, args: argparse.Namespace
) -> dict[str, Any]:
    # Before and after: the machine's speed drifts within a run of minutes.
    engine = [apart(run_engine, store, *photos)]
    flags, environment = SERVICES[name]
    limits = ["--max-queue", "64", "--max-in-flight", "96"]
    with served(store, *limits, *flags, environment=environment) as url:
        apart(send_load, url, 4, 3.0, *photos)  # warm
        floor = apart(send_load, url, 1, 2.0)  # what Ray Serve takes for a route that does nothing
        levels = {str(n): apart(send_load, url, n, args.seconds, *photos) for n in args.concurrency}
    engine.append(apart(run_engine, store, *photos))
    engine_p50 = statistics.mean(run["p50_ms"] for run in engine)
    result = {
        "store": store_name,
        "service": name,
        "engine_p50_ms": [run["p50_ms"] for run in engine],
        "engine_per_s": [run["per_s"] for run in engine],
        "floor_p50_ms": floor["p50_ms"],
        "concurrency": levels,
    }
    if "1" in levels:
        result["over_engine_p50_ms"] = levels["1"]["p50_ms"] - engine_p50
    print(json.dumps(result), file=sys.stderr)
    return result


def run_engine(store: str, *paths: str) -> dict[str, float]:
    """Answer the photos with QueryEngine in this process."""
    from serving.engine import QueryEngine

    engine = QueryEngine.open(store)
    photos = [Path(path).read_bytes() for path in paths]
    for photo in photos[:5]:
        engine.answer(photo)
    taken = []
    for photo in photos:
        started = time.perf_counter()
        engine.answer(photo)
        taken.append((time.perf_counter() - started) * 1e3)
    return {**percentiles(taken), "per_s": 1e3 / statistics.mean(taken)}


def bare_extractor(photos: list[Path]) -> dict[str, dict[str, float]]:
    """Return the photos/s of the model alone, by threads and batch size: what batching could gain."""
    cores = os.cpu_count() or 1
    return {str(n): apart(extract, n, *photos[:32]) for n in range(1, cores + 1)}


def extract(threads: str, *paths: str) -> dict[str, float]:
    from models.runtime.threads import sleep_while_waiting

    sleep_while_waiting()
    import torch

    from models.images.decoder import decode_image
    from models.images.preprocess import prepare
    from models.weights import load_extractor

    torch.set_num_threads(int(threads))
    extractor = load_extractor("efficientnet-lite0")
    pre = extractor.card.preprocessing
    images = [prepare(decode_image(Path(path).read_bytes()).pixels, pre) for path in paths]
    extractor.extract_prepared(images)
    rates = {}
    for size in (1, 2, 4, 8):
        best = []
        for _ in range(3):
            started = time.perf_counter()
            for at in range(0, len(images), size):
                extractor.extract_prepared(images[at : at + size])
            best.append(len(images) / (time.perf_counter() - started))
        rates[str(size)] = statistics.median(best)
    return rates


def report(results: list[dict[str, Any]], extractor: dict[str, Any], out: Path) -> None:
    print(
        f"{'store':<14}{'service':<26}{'clients':>8}{'p50':>8}{'p95':>8}{'p99':>8}{'req/s':>8}  mean ms of",
        end="",
    )
    print(" decode/extract/search/fetch/re-rank, rest")
    for result in results:
        for clients, level in result["concurrency"].items():
            stages = level["stages_mean_ms"]
            parts = "/".join(f"{stages[stage]:.0f}" for stage in STAGES)
            print(
                f"{result['store']:<14}{result['service']:<26}{clients:>8}{level['p50_ms']:>8.1f}"
                f"{level['p95_ms']:>8.1f}{level['p99_ms']:>8.1f}{level['per_s']:>8.1f}  {parts}, "
                f"{level['outside_stages_p50_ms']:.1f}"
                + ("" if set(level["statuses"]) == {"200"} else f"  {level['statuses']}")
            )
    columns = f"{'engine p50':>11}{'1 client p50':>13}{'more':>7}{'outside stages':>16}{'GET /healthz':>14}"
    print(f"\n{'store':<14}{'service':<26}{columns}")
    for result in results:
        one = result["concurrency"].get("1")
        if one:
            p50 = statistics.mean(result["engine_p50_ms"])
            more, outside = result["over_engine_p50_ms"], one["outside_stages_p50_ms"]
            print(
                f"{result['store']:<14}{result['service']:<26}{p50:>11.1f}{one['p50_ms']:>13.1f}"
                f"{more:>7.1f}{outside:>16.1f}{result['floor_p50_ms']:>14.1f}"
            )
    print("\nthe model alone, photos/s, by batch size")
    for threads, rates in extractor.items():
        print(f"{threads} threads: " + ", ".join(f"{size}: {rate:.1f}" for size, rate in rates.items()))
    machine = describe_machine(platform=platform.platform())
    values = {"command": command_line(), "machine": machine, "results": results}
    write_results(out, {**values, "bare_extractor_per_s": extractor})


if __name__ == "__main__":
    main()
