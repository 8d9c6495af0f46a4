"""A living index behind the real service: how soon answers have new rows, and whether they are right.

    python -m benchmarks.bench_living_service --rows 1000000 --seconds 600 --scratch /big/disk

Photos of a drawn city are indexed without local features; a store of generated rows grows around their
descriptors (see `living_store`). `placeray serve` serves it with its defaults, and a client asks with these
photos without a pause. A writer in a process of its own commits 1,000 rows every `--every` seconds; the last
one has the descriptor of a photo, which must then come first. Some rows are deleted again, that of a photo
among them, and the store is compacted. Measured are the seconds from the return of each commit to the first
answer with its row, and from that of each deletion to the first without; the time of answers before and
meanwhile; the memory of the process that answers, and how long it worked beside its answers, to take further
rows into the index. The first match of every answer is compared with what its version holds.

Half-way and at the end all commits stop, every fourth photo is asked for its 100 nearest, and a process of
its own searches the same version exactly, loaded afresh. At last over a third of all rows is deleted at once,
so that the index is trained anew; commits go on until that has happened.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.asking import Answer, Asking
from benchmarks.indexed_photos import index_photos
from benchmarks.living_changes import Changes, Done, write
from benchmarks.living_store import LivingStore
from benchmarks.machine import describe_machine
from benchmarks.results import command_line, make_parser, read_results, write_results
from benchmarks.service_process import ReplicaWatch, replica_of_this, served
from benchmarks.subprocesses import apart

K, COMPARED_EVERY = 100, 4
LATE_S = 2.0  # the goal
TRAINING_S = 1200.0  # the most that a new training is waited for


def fresh_answers(store: str, *photos: str) -> list[Any]:
    """Answer photos by exact search, loaded by this process: the newest version, and the keys of each."""
    from serving.engine import QueryEngine

    engine = QueryEngine.open(store, method="exact")
    answers = (engine.answer(Path(photo), top_k=K, candidates=K, rerank=False) for photo in photos)
    return [[each.store_version, [match.record.image_id for match in each.matches]] for each in answers]


def compared(asking: Asking, store: Path, photos: list[Path]) -> dict[str, Any]:
    """Compare answers to every fourth photo with those of a fresh exact search of the same version."""
    with asking.paused():
        numbers = range(0, len(photos), COMPARED_EVERY)
        given = [asking.ask(n, top_k=K, candidates=K, rerank="false") for n in numbers]
        exact = apart(fresh_answers, store, *(photos[n] for n in numbers))
    shares = [len(set(keys) & set(fresh)) / K for (_, keys), (_, fresh) in zip(given, exact, strict=True)]
    pairs = list(zip(given, exact, strict=True))
    return {
        "answers": len(pairs),
        "of another version": sum(answer.version != version for (answer, _), (version, _) in pairs),
        "recall_at_100": round(float(np.mean(shares)), 4),
        "least": round(min(shares), 2),
        "another first": sum(keys[:1] != fresh[:1] for (_, keys), (_, fresh) in pairs),
        "not the same": sum(keys != fresh for (_, keys), (_, fresh) in pairs),
    }


def times(answers: list[Answer], usual: list[Answer] | None = None) -> dict[str, float]:
    """Return percentiles in ms, and how many took over twice as long as the 99th percentile usually is."""
    taken = [answer.ms for answer in answers]
    figures: dict[str, float] = {"answers": len(taken)}
    figures |= {name: round(float(np.percentile(taken, q)), 1) for name, q in (("p50", 50), ("p99", 99))}
    figures["max"] = round(max(taken), 1)
    if usual is not None:
        limit_ms = 2 * times(usual)["p99"]
        figures["over_twice_p99_before"] = sum(ms > limit_ms for ms in taken)
    return figures


def late(seconds: list[float]) -> dict[str, float]:
    median, most = (round(float(value), 2) for value in (np.median(seconds), max(seconds)))
    return {
        "count": len(seconds),
        "median": median,
        "max": most,
        "over_2_s": sum(each > LATE_S for each in seconds),
    }


def prepare(scratch: Path, rows: int, photos: int) -> tuple[Path, list[Path]]:
    """Index the photos and make the store of generated rows, unless they are there; return a copy of it."""
    indexed = index_photos(scratch, photos)
    pristine, store = scratch / f"{rows}", scratch / "living"
    city = LivingStore(pristine, rows, width=indexed.descriptors.shape[1], photos=indexed)
    if city.store.count < rows:
        city.grow(rows - city.store.count)
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(pristine, store)
    return store, indexed.paths


def measure(
    store: Path, photos: list[Path], args: argparse.Namespace, save: Callable[[dict[str, Any], bool], None]
) -> None:
    """Serve the store and change it, see the top of the file; save what is measured, and then the rest."""
    context = multiprocessing.get_context("spawn")
    orders, done = context.Queue(), context.Queue()
    arguments = (str(store), str(args.scratch), args.rows, orders, done)
    context.Process(target=write, args=arguments, daemon=True).start()

    def order(what: str, value: Any) -> Done:
        orders.put((what, value))
        result: Done = done.get(timeout=1200)
        return result

    began = time.monotonic()
    with served(str(store), *(() if args.method == "auto" else ("--method", args.method))) as url:
        started_s = round(time.monotonic() - began, 1)
        asking = Asking(url, [photo.read_bytes() for photo in photos])
        check = functools.partial(compared, asking, store, photos)
        run = Changes(asking, order, args.every, args.rows)
        try:
            time.sleep(10)
            watch, first = ReplicaWatch(replica_of_this()), len(asking.answers)
            try:
                time.sleep(args.before)
                before = asking.answers[first:]
                figures = {"started_s": started_s, **followed(run, watch, before, args.seconds, check)}
                save(figures, False)
                anew = trained_anew(run, watch, before, int(args.share * args.rows))
                save({**figures, "trained_anew": {**anew, "compared_with_exact": check()}}, True)
            finally:
                watch.stop()
        finally:
            asking.stop()


def followed(
    run: Changes, watch: ReplicaWatch, before: list[Answer], seconds: float, check: Callable[[], Any]
) -> dict[str, Any]:
    """Commit for so many seconds, and compare half-way and at the end; return the figures."""
    answers, begin = run.asking.answers, len(run.asking.answers)
    run.follow(lambda passed: passed < seconds / 2)
    pause = len(answers)
    half_way = check()
    resumed = len(answers)
    run.follow(lambda passed: passed < seconds / 2)
    meanwhile = answers[begin:pause] + answers[resumed:]
    return {
        "seconds": seconds,
        "every_s": run.every_s,
        "found_after_s": late(run.found_s),
        "gone_after_s": late(run.gone_s),
        "answer_ms": {"before": times(before), "while following": times(meanwhile, before)},
        "wrong": run.wrong(before + meanwhile),
        "memory_mib": {
            "before": round(watch.loaded_mib),
            "peak": round(watch.peak_mib),
            "ratio": round(watch.peak_mib / watch.loaded_mib, 2),
        },
        "extended": {"times": len(watch.asides_s), "longest_s": max(watch.asides_s, default=0.0)},
        "compared_with_exact": {"half-way": half_way, "at the end": check()},
    }


def trained_anew(run: Changes, watch: ReplicaWatch, before: list[Answer], deleted: int) -> dict[str, Any]:
    """Delete so many rows that the index is trained anew, and go on until it is; return the figures.

    `training_s` is None if it was not done in `TRAINING_S`.
    """
    answers = run.asking.answers
    found, gone, asides = len(run.found_s), len(run.gone_s), len(watch.asides_s)
    began, start = time.monotonic(), len(answers)
    run.order("delete", list(range(deleted)))
    deleting_s, end = time.monotonic() - began, len(answers)
    # At least 30 s, so that the version is followed; then until it is trained.
    run.follow(lambda passed: passed < 30 or (watch.works_aside and passed < TRAINING_S))
    trained = not watch.works_aside
    return {
        "deleted": deleted,
        "deleting_s": round(deleting_s, 1),
        "training_s": max(watch.asides_s[asides:], default=None) if trained else None,
        "found_after_s": late(run.found_s[found:]),
        "gone_after_s": late(run.gone_s[gone:]),
        "answer_ms": {
            "while deleting": times(answers[start:end], before),
            "while training": times(answers[end:], before),
        },
        "wrong": run.wrong(answers[start:]),
        "memory_ratio": round(watch.peak_mib / watch.loaded_mib, 2),
    }


def main() -> None:
    parser = make_parser(__doc__, "living.json")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="go on committing for so long")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between commits")
    parser.add_argument(
        "--before", type=float, default=60.0, help="seconds of asking before the first commit"
    )
    parser.add_argument("--method", choices=["auto", "exact", "ivf"], default="auto")
    parser.add_argument("--share", type=float, default=0.38, help="of the rows, deleted at once at last")
    parser.add_argument("--scratch", type=Path, help="folder for photos and stores; kept, and used again")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        photos = 8 * -(-int((args.seconds + TRAINING_S) / args.every + 10) // 8)
        args.scratch = (args.scratch or Path(scratch)) / f"photos-{photos}"
        store, paths = prepare(args.scratch, args.rows, photos)
        measure(store, paths, args, functools.partial(save, args))


def save(args: argparse.Namespace, figures: dict[str, Any], finished: bool) -> None:
    """Write figures beside those of other runs; `finished`: whether they are all of them."""
    print(json.dumps(figures, indent=1))
    figures = {"rows": args.rows, "method": args.method, **figures}
    results = read_results(args.out)
    name = f"{args.method} {args.rows:,}, {args.seconds:.0f} s"
    about = {"command": command_line(), "machine": describe_machine()}
    results.setdefault("service", {})[name] = {**about, **figures}
    write_results(args.out, results, finished)


if __name__ == "__main__":
    main()
