"""The folder of a private Ray: closed to other users, with a short path, and gone afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from storage.errors import PlacerayError

__all__ = ["NoRayFolder", "base_folders", "end_processes_in", "private_folder"]

PREFIX = "placeray."
LOCK = "lock"
# Of an AF_UNIX address, 107 bytes, Ray takes 66 for /r/session_<time>_<pid>/sockets/plasma_store, and
# the name of the folder 18.
MAX_BASE_BYTES = 107 - 66 - 18
EXIT_PATIENCE_S = 5.0


class NoRayFolder(PlacerayError):
    """There is no folder in which a private Ray could keep its sockets."""

    reason = "no_ray_folder"


def base_folders(environment: Mapping[str, str] = os.environ) -> tuple[Path, Path]:
    """Return the folders for Ray's sockets and logs, and for the objects that it spills to disk.

    Both are RAY_TMPDIR or TMPDIR, or else /tmp. Where that path is too long for sockets, only objects
    go there.

    Raises:
        NoRayFolder: RAY_TMPDIR cannot be written, or no folder is writable and short enough.
    """
    requested = environment.get("RAY_TMPDIR")
    if requested:
        with contextlib.suppress(OSError):
            os.makedirs(requested, exist_ok=True)
        if not _is_writable(requested):
            raise NoRayFolder(
                f"RAY_TMPDIR={requested} cannot be written: give a folder that can, or unset it"
            )
    names = [requested, environment.get("TMPDIR"), "/tmp", "/var/tmp"]
    writable = [Path(os.path.abspath(name)) for name in names if name and _is_writable(name)]
    short = [path for path in writable if len(os.fsencode(path)) <= MAX_BASE_BYTES]
    if not short:
        raise NoRayFolder(
            f"Ray needs a writable folder whose path has at most {MAX_BASE_BYTES} bytes, for its sockets: "
            "make one and set RAY_TMPDIR to it"
        )
    return short[0], writable[0]


def _is_writable(folder: str) -> bool:
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


@contextlib.contextmanager
def private_folder(base: Path) -> Iterator[Path]:
    """Make a folder of mode 0700 in `base` and remove it afterwards, with those that killed commands left.

    A lock that ends with this process tells folders in use from others.
    """
    _remove_abandoned(base)
    new = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=base))
    lock = os.open(new / LOCK, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = new.with_name(new.name[1:])
        new.rename(folder)  # under this name it is always locked, or abandoned
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _remove_abandoned(base: Path) -> None:
    for folder in base.glob(f"{PREFIX}????????"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def end_processes_in(folder: Path, *, patience_s: float = EXIT_PATIENCE_S) -> None:
    """Wait until no other process has a file open in `folder`; kill those that are left."""
    deadline = time.monotonic() + patience_s
    while processes := _processes_in(folder):
        if time.monotonic() > deadline:
            for process in processes:
                with contextlib.suppress(OSError):
                    os.kill(process, signal.SIGKILL)
            return
        time.sleep(0.05)


def _processes_in(folder: Path) -> list[int]:
    """Return the ids of this user's processes that have a file open in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if int(process.name) != os.getpid() and any(
                os.readlink(file).startswith(f"{folder}/") for file in (process / "fd").iterdir()
            ):
                found.append(int(process.name))
    return found
