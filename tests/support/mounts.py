"""File systems of memory, to have them full or read-only; tests are skipped where mounting is not allowed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["fill_disk", "mounted", "read_only"]


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Mount a file system of memory at `folder`; skip where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", os.fspath(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", os.fspath(folder)], check=True)


@contextmanager
def read_only(store: Path, folder: Path) -> Iterator[Path]:
    """Mount a copy of a store read-only."""
    folder.mkdir()
    with mounted(folder, "size=64m"):
        shutil.copytree(store, folder / "store")
        command = ["mount", "-o", "remount,ro", os.fspath(folder)]
        if subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("mounting is not allowed here")
        yield folder / "store"


def fill_disk(folder: Path) -> Path:
    """Write a file into a folder until its disk is full; return it."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while file.write(b"\x00" * 4096):
            pass
    return filler
