"""How OpenMP's threads wait for each other: time per photo and per answer, alone and beside a busy process.

    python -m benchmarks.bench_waiting

The default model describes photos of the demo city one by one, and `QueryEngine` answers them, in a process
of its own for each setting. The settings take turns for several rounds, since the machine's speed drifts.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import describe_machine
from benchmarks.results import command_line, make_parser, write_results
from benchmarks.serve_stores import demo_city
from benchmarks.subprocesses import apart
from benchmarks.timing import median_ms

# How many rounds GNU's runtime spins before it sleeps, whatever the policy.
SETTINGS = {
    "spin": {"GOMP_SPINCOUNT": "300000"},  # its default
    "sleep": {"GOMP_SPINCOUNT": "0"},  # as with the policy that placeray sets
    "spin, then sleep": {"GOMP_SPINCOUNT": "10000"},
}
BESIDE = {"alone": 0, "busy": 1}  # other processes that keep a core busy
PHOTOS = 40


def main() -> None:
    parser = make_parser(__doc__, "waiting.json")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="placeray-bench-") as scratch:
        city, photos = demo_city(Path(scratch))
        for beside, others in BESIDE.items():
            for _ in range(args.rounds):
                for name, environment in SETTINGS.items():
                    with busy(others):
                        figures = apart(measure, city, *photos[:PHOTOS], environment=environment)
                    runs.setdefault((name, beside), []).append(figures)
    settings = {name: {beside: middle(runs[name, beside]) for beside in BESIDE} for name in SETTINGS}
    for name, of in settings.items():
        print(f"{name:>16} {of}")
    machine = describe_machine(rounds=args.rounds, photos=PHOTOS)
    write_results(args.out, {"command": command_line(), "machine": machine, "settings": settings})


def middle(runs: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure."""
    return {name: round(statistics.median(run[name] for run in runs), 1) for name in runs[0]}


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep so many cores busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(store: str, *paths: str) -> dict[str, float]:
    """Return median milliseconds, with as many threads as cores."""
    import torch

    from models.images.decoder import decode_image
    from serving.engine import QueryEngine

    torch.set_num_threads(os.cpu_count() or 1)
    engine = QueryEngine.open(store)
    photos = [Path(path).read_bytes() for path in paths]
    pixels = [decode_image(photo).pixels for photo in photos]
    return {
        "model_ms": median_ms(lambda each: engine.extractor.extract([each]), pixels)[0],
        "answer_ms": median_ms(engine.answer, photos)[0],
    }


if __name__ == "__main__":
    main()
