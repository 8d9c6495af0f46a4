"""The HTTP service under load, and what Ray Serve adds to a query.

    make bench-serve
    python -m benchmarks.bench_serve --rows 0 --seconds 5

Each service is started by `placeray serve` and asked over HTTP by clients in a process of their own, each of
which sends its next photo when the answer to the last one has come. Beside it the same photos go through
QueryEngine in one process. Two stores: the demo city, and descriptors with the structure of a city, generated
as for `bench_search`, each row with the local features of one of the demo city's photos.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "serve.json"
STAGES = ("decode", "extract", "search", "fetch", "rerank")
THROUGHPUT_MODE = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(64 << 20),
}
SERVICES: dict[str, tuple[list[str], dict[str, str]]] = {
    "compact": ([], {}),
    "compact, batch 1": (["--max-batch", "1"], {}),
    "compact, all cores": (["--threads", str(os.cpu_count())], {}),
    "split": (["--topology", "split"], {}),
    "compact, throughput mode": ([], THROUGHPUT_MODE),
    "split, throughput mode": (["--topology", "split"], THROUGHPUT_MODE),
}
ON_LARGE = ("compact", "split")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=8.0, help="for each concurrency")
    parser.add_argument("--rows", type=int, default=100_000, help="of the generated store; 0: none")
    parser.add_argument("--services", nargs="+", choices=list(SERVICES), default=list(SERVICES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="placeray-bench-") as scratch:
        city, photos = demo_city(Path(scratch))
        results = [
            *(measure("demo city", city, photos, name, args) for name in args.services),
        ]
        if args.rows:
            large = generated(city, Path(scratch, "large"), args.rows)
            names = [name for name in args.services if name in ON_LARGE]
            results += [measure(f"{args.rows:,} rows", large, photos, name, args) for name in names]
        extractor = bare_extractor(photos)
    report(results, extractor, args.out)


def demo_city(scratch: Path) -> tuple[str, list[Path]]:
    command = [sys.executable, "-m", "pipelines.cli", "demo", "--out", str(scratch), "--quiet", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    summary = json.loads(done.stdout)
    return summary["store"], sorted(Path(summary["first_query"]["image"]).parent.glob("*.jpg"))


def generated(city: str, folder: Path, rows: int) -> str:
    """Make a store of generated descriptors; its local features are those of the city's photos, in turn."""
    import pyarrow as pa

    from benchmarks.bench_search import make_city
    from models.feature_encoder import FeatureEncoder
    from storage.features.shards import write_shard
    from storage.store import Store
    from storage.table.schema import row_schema

    source = Store.open(city)
    records = source.get(source.metadata()["image_id"].to_pylist())
    pool, ok = source.fetch(records)
    assert ok.all()
    store = Store.create(folder, source.card)
    encoder = FeatureEncoder(store.codec)
    schema = row_schema(store.card)
    dim = store.card.descriptor_dim
    drawn = folder.with_name("drawn")
    drawn.mkdir()
    make_city(rows, drawn)
    descriptors = np.load(drawn / "rows.npy", mmap_mode="r")
    # Turned into the model's more dimensions, which changes no angle.
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((dim, descriptors.shape[1])))[0].T
    with store.lease():
        for start in range(0, rows, 1000):
            numbers = np.arange(start, min(rows, start + 1000))
            vectors = descriptors[numbers].astype(np.float32) @ turn.astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            ids = [f"generated-{number}" for number in numbers]
            shard = write_shard(store.uri, ids, encoder.encode(pool[numbers % len(pool)]))
            flat = pa.array(vectors.astype(store.card.descriptor_dtype).reshape(-1))
            columns: dict[str, Any] = {
                "image_id": ids,
                "uri": [records[number % len(pool)].uri for number in numbers],
                "sha256": ["0" * 64] * len(ids),
                "width": [320] * len(ids),
                "height": [240] * len(ids),
                "descriptor": pa.FixedSizeListArray.from_arrays(flat, dim),
                "shard": [shard] * len(ids),
                "row": list(range(len(ids))),
            }
            empty = [None] * len(ids)
            store.commit(pa.table({n: columns.get(n, empty) for n in schema.names}, schema=schema))
    return store.uri


def measure(
    store_name: str, store: str, photos: list[Path], name: str, args: argparse.Namespace
) -> dict[str, Any]:
    # Before and after: the machine's speed drifts within a run of minutes.
    engine = [in_one_process(store, photos)]
    with service(store, name) as url:
        load(url, photos, 4, 3.0)  # warm
        floor = load(url, [], 1, 2.0)  # what Ray Serve takes for a route that does nothing
        levels = {str(n): load(url, photos, n, args.seconds) for n in args.concurrency}
    engine.append(in_one_process(store, photos))
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


@contextmanager
def service(store: str, name: str) -> Iterator[str]:
    flags, environment = SERVICES[name]
    with tempfile.TemporaryDirectory(prefix="placeray-bench-") as logs:
        command = [sys.executable, "-m", "pipelines.cli", "serve", "--store", store, "--port", "0", "--json"]
        command += ["--log-file", f"{logs}/log", "--max-queue", "64", "--max-in-flight", "96", *flags]
        with open(f"{logs}/err", "w") as errors:
            process = subprocess.Popen(
                command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            if not line:
                raise SystemExit(f"{name} did not start: {Path(logs, 'err').read_text()[-2000:]}")
            yield json.loads(line)["url"]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def load(url: str, photos: list[Path], clients: int, seconds: float) -> dict[str, Any]:
    """Ask from a process of its own; without photos, for `/healthz`."""
    code = "import sys; from benchmarks.bench_serve import ask; ask(*sys.argv[1:])"
    command = [sys.executable, "-c", code, url, str(clients), str(seconds), *map(str, photos)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def ask(url: str, clients: str, seconds: str, *paths: str) -> None:
    import aiohttp

    photos = [Path(path).read_bytes() for path in paths]
    taken: list[float] = []
    statuses: dict[int, int] = {}
    work: dict[str, list[float]] = {stage: [] for stage in (*STAGES, "total")}
    outside: list[float] = []

    async def client(session: aiohttp.ClientSession, number: int, ends: float) -> None:
        while time.perf_counter() < ends:
            started = time.perf_counter()
            if photos:
                headers = {"content-type": "image/jpeg"}
                asked = session.post(f"{url}/v1/query", data=photos[number % len(photos)], headers=headers)
            else:
                asked = session.get(f"{url}/healthz")
            async with asked as reply:
                answer = await reply.json()
            statuses[reply.status] = statuses.get(reply.status, 0) + 1
            ms = (time.perf_counter() - started) * 1e3
            if not photos:
                taken.append(ms)
            elif reply.status == 200:
                taken.append(ms)
                for stage, value in answer["timings_ms"].items():
                    work[stage].append(value)
                outside.append(ms - sum(answer["timings_ms"][stage] for stage in STAGES))
            number += 7

    async def run() -> float:
        started = time.perf_counter()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            ends = started + float(seconds)
            await asyncio.gather(*(client(session, number, ends) for number in range(int(clients))))
        return time.perf_counter() - started

    elapsed = asyncio.run(run())
    print(
        json.dumps(
            {
                **percentiles(taken),
                "per_s": len(taken) / elapsed,
                "statuses": statuses,
                "stages_mean_ms": {stage: statistics.mean(values or [0]) for stage, values in work.items()},
                "outside_stages_p50_ms": statistics.median(outside or [0]),
            }
        )
    )


def in_one_process(store: str, photos: list[Path]) -> dict[str, Any]:
    code = "import sys; from benchmarks.bench_serve import engine; engine(*sys.argv[1:])"
    command = [sys.executable, "-c", code, store, *map(str, photos)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def engine(store: str, *paths: str) -> None:
    from serving.engine import QueryEngine

    asked = QueryEngine.open(store)
    photos = [Path(path).read_bytes() for path in paths]
    for photo in photos[:5]:
        asked.answer(photo)
    taken = []
    for photo in photos:
        started = time.perf_counter()
        asked.answer(photo)
        taken.append((time.perf_counter() - started) * 1e3)
    print(json.dumps({**percentiles(taken), "per_s": 1e3 / statistics.mean(taken)}))


def bare_extractor(photos: list[Path]) -> dict[str, dict[str, float]]:
    """Photos a second through the model alone, by threads and batch size: what batching could gain."""
    code = "import sys; from benchmarks.bench_serve import extract; extract(*sys.argv[1:])"
    found = {}
    for threads in range(1, (os.cpu_count() or 1) + 1):
        command = [sys.executable, "-c", code, str(threads), *map(str, photos[:32])]
        found[str(threads)] = json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout
        )
    return found


def extract(threads: str, *paths: str) -> None:
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
    print(json.dumps(rates))


def percentiles(ms: list[float]) -> dict[str, float]:
    ordered = sorted(ms)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return {"p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99), "answers": len(ordered)}


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
    out.parent.mkdir(exist_ok=True)
    machine = {"cpus": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()}
    value = {"machine": machine, "command": " ".join(sys.orig_argv[1:]), "results": results}
    out.write_text(json.dumps({**value, "bare_extractor_per_s": extractor}, indent=1) + "\n")
    print(f"\nwritten to {out}")


if __name__ == "__main__":
    main()
