"""What benchmarks keep from run to run, such as indexed cities: of one state of the code."""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from pathlib import Path

from benchmarks.catalogue import part_named
from benchmarks.sources import digest

__all__ = ["add_kept_folder", "kept_folder"]

# Parts that read what the others of a row keep.
SHARED = {
    "accuracy": ("accuracy", "sizes", "layers"),
    "drives": ("drives", "priors"),
    "places": ("places", "known"),
    "rerank": ("rerank",),
    "side path": ("side path",),
    "values": ("values",),
    "finetune": ("finetune demo",),
}


def add_kept_folder(
    parser: argparse.ArgumentParser, option: str, kept: str, default: Path | None = None
) -> None:
    """Add an option for the folder that holds what is kept; its value is the one for the present code.

    Args:
        parser: Of the benchmark.
        option: `--scratch` or `--work`.
        kept: A name of `SHARED`.
        default: The folder; None: one among the system's temporary files.
    """
    folder = default or Path(tempfile.gettempdir(), f"placeray-{kept}")
    parser.add_argument(
        option,
        type=lambda text: kept_folder(Path(text), kept),
        default=str(folder),
        help="folder of what is kept for another run, with a folder for each state of the code",
    )


def kept_folder(folder: Path, kept: str) -> Path:
    """Return the folder below one for what the code as it is keeps, made if it is missing.

    A figure that is measured on a store or on features of former code is not a figure of the present code.

    Args:
        folder: Where it is.
        kept: A name of `SHARED`.
    """
    code = hashlib.sha256("".join(digest(part_named(name)) for name in SHARED[kept]).encode())
    of_this_code = folder / f"{kept.replace(' ', '-')}-{code.hexdigest()[:12]}"
    of_this_code.mkdir(parents=True, exist_ok=True)
    return of_this_code
