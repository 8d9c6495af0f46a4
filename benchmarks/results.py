"""Command lines and result files of the benchmarks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.provenance import RESULTS, shown, stamped

__all__ = ["RESULTS", "command_line", "former_entries", "make_parser", "read_results", "write_results"]

_ABOUT_A_RUN = ("machine", "command", "provenance")


def make_parser(description: str | None, file: str) -> argparse.ArgumentParser:
    """Return a parser with the option `--out`, by default `file` among the results."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=RESULTS / file, help="JSON file of the results")
    return parser


def command_line() -> str:
    """Return the command that started this benchmark."""
    spec = sys.modules["__main__"].__spec__
    name = spec.name if spec is not None else "benchmarks"
    return " ".join(["python -m", name, *shown(sys.argv[1:])])


def read_results(out: Path) -> dict[str, Any]:
    """Return the results of earlier runs, or an empty dict."""
    return dict(json.loads(out.read_text())) if out.exists() else {}


def former_entries(out: Path, kept: Callable[[str], bool] = lambda name: True) -> dict[str, Any]:
    """Return entries of earlier runs, without what is said about those runs.

    Args:
        out: The file of the results.
        kept: Which names; default: all.
    """
    former = read_results(out).items()
    return {name: values for name, values in former if name not in _ABOUT_A_RUN and kept(name)}


def write_results(out: Path, values: dict[str, Any], finished: bool = True) -> None:
    """Write results with their provenance; `finished`: whether this was the last of several writes."""
    spec = sys.modules["__main__"].__spec__
    if spec is not None:
        former = read_results(out).get("provenance", {})
        values = stamped(values, former, [spec.name, *sys.argv[1:]], finished)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(values, indent=1) + "\n")
    print(f"written to {out}", file=sys.stderr)
