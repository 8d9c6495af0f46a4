"""Measure again what is older than the code or from another machine, one by one: `make bench-all`.

Stopped at any moment, the same command goes on where it was: what is of the present code and of this machine
is left out. A benchmark that fails is named at the end, and the others are measured all the same.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.catalogue import INPUTS, PARTS, Part, part_named
from benchmarks.provenance import RESULTS, State, is_this_machine, status
from benchmarks.sources import ROOT

__all__ = ["due", "main", "measure"]

Run = Callable[[list[str]], int]


def main(arguments: list[str] | None = None, run: Run | None = None) -> int:
    """Measure what is due and return 0 if all of it is of the present code afterwards."""
    args = make_parser().parse_args(arguments)
    folders = dict(args.input)
    parts = [part_named(name) for name in args.only] if args.only else list(PARTS)
    waiting = [part for part in parts if due(part, args.results)]
    print(f"{len(parts) - len(waiting)} of {len(parts)} benchmarks are of the present code and this machine")
    failed, left = [], []
    for part in waiting:
        if reason := why_not(part, folders):
            print(f"{part.name}: left out, {reason}")
            left.append(part.name)
        elif args.list:
            print(f"{part.name}: python {' '.join(part.command(folders))}{last_time(part, args.results)}")
        elif not measure(part, folders, args.results, run or run_here):
            failed.append(part.name)
    if failed:
        print(f"failed: {', '.join(failed)}. The same command tries them again.")
    return 1 if failed or left else 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.measure_all",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="benchmarks by name, such as 'pipeline feed'"
    )
    parser.add_argument(
        "--list", action="store_true", help="print what would run, and how long it took last time"
    )
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        type=named_folder,
        metavar="NAME=DIR",
        help="photos: folder of the photo sets; corridor, city: data sets in the standard layout. Benchmarks"
        " whose folders are not given are left out. May be given several times",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    return parser


def named_folder(text: str) -> tuple[str, str]:
    name, _, folder = text.partition("=")
    if name not in INPUTS or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=DIR with NAME one of {', '.join(INPUTS)}")
    return name, str(Path(folder).resolve())


def due(part: Part, results: Path) -> bool:
    """Return whether a part has to be measured on this machine."""
    one = status(part, results)
    return one.state is not State.CURRENT or not is_this_machine(one)


def why_not(part: Part, folders: dict[str, str]) -> str | None:
    """Return what a part lacks here, or None."""
    if missing := [name for name in part.needs if name not in folders]:
        return "it needs " + " ".join(f"--input {name}=DIR" for name in missing)
    if part.accelerator and not has_accelerator():
        return "it needs an accelerator"
    return None


def has_accelerator() -> bool:
    import torch

    return torch.accelerator.is_available()


def measure(part: Part, folders: dict[str, str], results: Path, run: Run) -> bool:
    """Run one benchmark in a process of its own; return whether its result is of the present code then."""
    command = [*part.command(folders), "--out", str(results / part.file)]
    print(f"{part.name}: python {' '.join(command)}", flush=True)
    started = time.monotonic()
    code = run([sys.executable, *command])
    done = code == 0 and not due(part, results)
    ended = (
        "measured" if done else f"failed with exit code {code}" if code else "not whole, or the code changed"
    )
    print(f"{part.name}: {ended} after {time.monotonic() - started:.0f} s", flush=True)
    return done


def run_here(command: Sequence[str]) -> int:
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def last_time(part: Part, results: Path) -> str:
    seconds = status(part, results).record.get("took_s")
    return f"  ({seconds:.0f} s last time)" if seconds else ""


if __name__ == "__main__":
    raise SystemExit(main())
