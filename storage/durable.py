"""Files that survive a power cut: flushing, replacing in one step, full disks, and fault points for tests."""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlparse

from storage.errors import OutOfSpace, StoreError

__all__ = ["fault_point", "flush", "local_folder", "name_full_disk", "replace_file"]

_passed: Counter[str] = Counter()


def local_folder(uri: str | os.PathLike[str]) -> Path:
    """Return the folder that a store URI names.

    Raises:
        StoreError: the URI names something else than a local folder.
    """
    text = os.fspath(uri)
    if "://" not in text:
        return Path(text).expanduser().absolute()
    parsed = urlparse(text)
    if parsed.scheme != "file" or parsed.netloc not in ("", "localhost"):
        raise StoreError(
            f"{text}: stores live in local folders so far: give a path, or mount the bucket as one"
        )
    return Path(unquote(parsed.path))


def fault_point(name: str) -> None:
    """Kill this process when the environment variable `PLACERAY_FAULT_AT` asks for it (crash tests).

    Args:
        name: The point just reached. `PLACERAY_FAULT_AT=name` kills the first time it is reached and
            `PLACERAY_FAULT_AT=name:3` the third time.
    """
    wanted = os.environ.get("PLACERAY_FAULT_AT")
    if not wanted:
        return
    point, _, nth = wanted.partition(":")
    if point == name:
        _passed[name] += 1
        if _passed[name] >= int(nth or 1):
            os.kill(os.getpid(), signal.SIGKILL)


def flush(path: Path) -> None:
    """Force a file's contents, or a folder's list of names, down to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, data: bytes, *, fault: str | None = None) -> None:
    """Put `data` at `path` so that a crash at any moment leaves the old file or the new one, whole.

    Args:
        path: The file to create or replace.
        data: All of its new contents.
        fault: Fault point between writing and renaming.

    Raises:
        OutOfSpace: the disk is full; the old file stands.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with name_full_disk(path, len(data)), open(temporary, "wb") as file:
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
def name_full_disk(path: Path, bytes_needed: int) -> Iterator[None]:
    """Turn "no space left on device", however a library words it, into OutOfSpace.

    Args:
        path: What was being written.
        bytes_needed: About how much room it takes.

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
