"""Durable files: fsync, atomic replacement, and a clear error when the disk is full."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.errors import OutOfSpace
from storage.fault_points import fault_point

__all__ = ["detect_full_disk", "flush", "replace_file"]


def flush(path: Path) -> None:
    """Flush a file, or a folder's entries, to disk (fsync)."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, data: bytes, *, fault: str | None = None) -> None:
    """Write a file atomically: a crash at any moment leaves either the old file or the new one.

    Args:
        path: The file to create or replace.
        data: Its new contents.
        fault: Fault point between writing and renaming.

    Raises:
        OutOfSpace: the disk is full; the old file is kept.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with detect_full_disk(path, len(data)), open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if fault is not None:
            fault_point(fault)
        os.replace(temporary, path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def detect_full_disk(path: Path, bytes_needed: int) -> Iterator[None]:
    """Raise OutOfSpace instead of "no space left on device", however a library words it.

    Args:
        path: The file being written, for the message.
        bytes_needed: About how much space it takes, for the message.

    Raises:
        OutOfSpace: the disk is full.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if not full and "No space left on device" not in str(error) and "os error 28" not in str(error):
            raise
        raise OutOfSpace(
            f"no space left to write {path}: about {bytes_needed} bytes are needed; everything committed "
            "before is still there: free some space and run the same command again"
        ) from error
