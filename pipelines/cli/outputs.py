"""Files and folders that a verb writes beside its store: checked before the work, not after an hour of it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from pipelines.cli.options import UsageError
from storage.objects.address import is_bucket_uri

__all__ = ["FILES", "FOLDERS", "require_outputs"]

# Flags of every verb; a flag of one verb alone is written verb.flag.
FILES = frozenset(
    {
        "embed.out",
        "locate.out",
        "export.out",
        "tune.out",
        "track.out",
        "import-weights.out",
        "finetune.out",
        "rejected",
        "trace",
        "log_file",
    }
)
FOLDERS = frozenset({"atlas.out", "copies", "demo.out", "report", "predictions", "run"})


def require_outputs(args: argparse.Namespace) -> None:
    """Check that what the flags name can be written; nothing is created.

    Raises:
        UsageError: a folder is missing, or something cannot be written by this user.
    """
    for flag, value in _given(vars(args), args.verb).items():
        if is_bucket_uri(value):
            continue
        is_file = flag in FILES or f"{args.verb}.{flag}" in FILES
        shown = f"--{flag.replace('_', '-')} {value}"
        path = Path(value).expanduser()
        if is_file:
            _require_file(path, shown)
        else:
            _require_folder(path, shown)


def _given(values: Mapping[str, object], verb: str) -> dict[str, str]:
    """Return the paths by flag; `-` is stderr."""
    return {
        flag: str(value)
        for flag, value in values.items()
        if {flag, f"{verb}.{flag}"} & (FILES | FOLDERS) and value not in (None, "", "-")
    }


def _require_file(path: Path, shown: str) -> None:
    if path.is_dir():
        raise UsageError(f"{shown} is a folder: give the path of a file")
    if not path.exists():
        if not path.parent.is_dir():
            raise UsageError(f"{shown} cannot be written: there is no folder {path.parent}, create it first")
        path = path.parent
    _require_access(path, shown)


def _require_folder(path: Path, shown: str) -> None:
    while not path.exists() and path != path.parent:
        path = path.parent
    if not path.is_dir():
        raise UsageError(f"{shown} cannot be written: {path} is not a folder, give another one")
    _require_access(path, shown)


def _require_access(path: Path, shown: str) -> None:
    needed = os.W_OK | os.X_OK if path.is_dir() else os.W_OK
    if not os.access(path, needed):
        raise UsageError(
            f"{shown} cannot be written: {path} is on a read-only file system, or this user may not write "
            "there; choose another path"
        )
