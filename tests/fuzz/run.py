"""Fuzz one target in this process: python -m tests.fuzz.run images --count 20000.

Prints JSON: outcomes, the most processor time that one input took, and how much memory grew. Ends with 1 at
the first input that raises anything, takes more than --max-cpu-s or makes memory grow beyond the target's
bound, and names it by number: --first N --count 1 runs it again, --first N --write FILE keeps it. The number
at work is always in --progress, for inputs that end the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.targets import TARGETS, Check, opened

MAX_CPU_S = 2.0


class Finding(Exception):
    """An input that was not survived."""


def main(arguments: list[str] | None = None) -> int:
    args = make_parser().parse_args(arguments)
    seeds = TARGETS[args.target].seeds()
    if args.write:
        args.write.write_bytes(TARGETS[args.target].mutate(seeds, args.first))
        return 0
    with tempfile.TemporaryDirectory() as folder, opened[args.target](Path(folder)) as check:
        warm = Counter(check(seed) for seed in seeds)
        try:
            figures = fuzz(check, seeds, range(args.first, args.first + args.count), args)
        except Finding as finding:
            print(f"{args.target}: {finding}", file=sys.stderr)
            return 1
    print(json.dumps({"target": args.target, "seeds": warm, **figures}))
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=list(TARGETS))
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--max-cpu-s", type=float, default=MAX_CPU_S, help="processor time of one input")
    parser.add_argument("--progress", type=Path, help="file that holds the number at work")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write input --first there and end")
    return parser


def fuzz(check: Check, seeds: list[bytes], numbers: range, args: argparse.Namespace) -> dict[str, object]:
    """Check each input; Finding for the first that is not survived."""
    outcomes: Counter[str] = Counter()
    slowest = (0.0, -1)
    memory, mutate = peak_mib(), TARGETS[args.target].mutate
    for number in numbers:
        if args.progress:
            args.progress.write_text(str(number))
        data = mutate(seeds, number)
        started = time.process_time()
        try:
            outcomes[check(data)] += 1
        except BaseException as error:
            raise Finding(f"input {number}: {error!r}") from error
        slowest = max(slowest, (time.process_time() - started, number))
        if slowest[0] > args.max_cpu_s:
            raise Finding(f"input {slowest[1]} took {slowest[0]:.1f} s of processor time")
        grown = peak_mib() - memory
        if grown > TARGETS[args.target].max_growth_mib:
            raise Finding(f"input {number}: memory grew by {grown:.0f} MiB")
    return {
        "inputs": len(numbers),
        "outcomes": dict(outcomes.most_common()),
        "slowest_cpu_s": round(slowest[0], 3),
        "slowest": slowest[1],
        "grown_mib": round(peak_mib() - memory),
    }


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    raise SystemExit(main())
