"""Durable files: fsync, atomic replacement, and a clear error where nothing can be written."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from storage.errors import NotWritable, OutOfSpace
from storage.fault_points import fault_point

__all__ = ["explain_write_errors", "flush", "replace_file", "replacing"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


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
        NotWritable: the file system is read-only, or the folder is another user's.
    """
    with replacing(path, len(data), fault=fault) as file:
        file.write(data)


@contextmanager
def replacing(path: Path, bytes_needed: int = 0, *, fault: str | None = None) -> Iterator[BinaryIO]:
    """Write a file as `replace_file` does, in parts: after an error the old file is kept, or none is left.

    Args:
        path: The file to create or replace.
        bytes_needed: About how much space it takes, for the message.
        fault: Fault point between writing and renaming.

    Raises:
        OutOfSpace: the disk is full.
        NotWritable: the file system is read-only, or the folder is another user's.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    with explain_write_errors(path, bytes_needed):
        try:
            # "x": nothing that lies there under this name is written through.
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if fault is not None:
                fault_point(fault)
            os.replace(temporary, path)
            flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def explain_write_errors(path: object, bytes_needed: int) -> Iterator[None]:
    """Raise OutOfSpace or NotWritable where the system refuses to write, however a library words it.

    Args:
        path: The file being written, for the message.
        bytes_needed: About how much space it takes, for the message.

    Raises:
        OutOfSpace: the disk is full.
        NotWritable: the file system is read-only, or the folder is another user's.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if (code := _code(error, _FORBIDDEN)) is not None:
            raise NotWritable(
                f"{path} cannot be written ({os.strerror(code)}): give this user the right to write "
                "there, or use a folder that can be written"
            ) from error
        if _code(error, _FULL) is None:
            raise
        raise OutOfSpace(
            f"no space left to write {path}: about {bytes_needed} bytes are needed; everything committed "
            "before is still there: free some space and run the same command again"
        ) from error


def _code(error: Exception, codes: tuple[int, ...]) -> int | None:
    """Return which of the system's error codes an exception stands for; libraries give only its text."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in codes else None
    text = str(error)
    matches = (code for code in codes if os.strerror(code) in text or f"os error {code})" in text)
    return next(matches, None)
