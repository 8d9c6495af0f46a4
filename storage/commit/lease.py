"""The write lock of a store: a lease file with flock and a heartbeat."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import socket
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from storage.durable import explain_write_errors
from storage.errors import StoreLocked

__all__ = ["DEAD_AFTER_S", "HEARTBEAT_S", "Lease", "crashed_since"]

HEARTBEAT_S = 5.0
DEAD_AFTER_S = 15.0
_POLL_S = 0.2
_BYTES = 512  # one padded write, so that readers never see a partial heartbeat


class Lease:
    """The write lock of a store, as a context manager.

    On one host flock decides, which the kernel releases as soon as a process dies. A shared folder may not
    support flock between hosts, so a holder on another host is considered alive until its heartbeat is 15 s
    old (by wall clocks that agree to a few seconds).

    Attributes:
        since: When the lease was taken.
        crashed_since: When the former holder took it (Unix time), if that ended without releasing it.
    """

    def __init__(self, folder: Path, *, timeout_s: float = 0.0) -> None:
        """Prepare the lease of the store in `folder`; taking it waits up to `timeout_s` for its holder."""
        self._path = folder / "LEASE"
        self._timeout_s = timeout_s
        self._fd = -1
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.since = datetime.now(UTC)
        self.crashed_since: float | None = None

    def __enter__(self) -> Lease:
        """Take the lease.

        Raises:
            StoreLocked: another writer holds it.
            NotWritable: the store is on a read-only file system, or belongs to another user.
        """
        deadline = time.monotonic() + self._timeout_s
        while (holder := self._try_acquire()) is not None:
            if time.monotonic() >= deadline:
                raise StoreLocked(
                    f"{self._path.parent} is being written by process {holder.get('pid', '?')} on host "
                    f"{holder.get('host', '?')} since {holder.get('since', '?')}: wait for it, or stop it"
                )
            time.sleep(min(_POLL_S, max(0.0, deadline - time.monotonic())))
        self._thread = threading.Thread(target=self._run_heartbeat, name="placeray-lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lease."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._is_held():
            os.ftruncate(self._fd, 0)
        os.close(self._fd)
        self._fd = -1

    def check(self) -> None:
        """Check that the lease is still held.

        Raises:
            StoreLocked: another writer took it over after this process was suspended for long.
        """
        if not self._is_held():
            raise StoreLocked(
                f"the lease {self._path} was taken over by another writer; nothing was written: "
                "run the same command again when it is done"
            )

    def _try_acquire(self) -> dict[str, Any] | None:
        """Take the lease and return None, or return the state of its holder."""
        with explain_write_errors(self._path, _BYTES):
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(fd)
            os.close(fd)
            return holder
        holder = _read(fd)
        age_s = time.time() - float(holder.get("beat", 0.0))
        if holder.get("host", socket.gethostname()) != socket.gethostname() and age_s < DEAD_AFTER_S:
            os.close(fd)
            return holder
        self._fd = fd
        self.since = datetime.now(UTC)
        self.crashed_since = _since(holder)
        try:
            with explain_write_errors(self._path, _BYTES):
                self._write_heartbeat()
        except BaseException:
            os.close(fd)  # releases the lock
            self._fd = -1
            raise
        return None

    def _write_heartbeat(self) -> None:
        state = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": self.since.isoformat(timespec="seconds"),
            "token": self._token,
            "beat": time.time(),
        }
        os.pwrite(self._fd, json.dumps(state).encode().ljust(_BYTES), 0)

    def _run_heartbeat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            if not self._is_held():
                return
            with contextlib.suppress(OSError):  # a full disk: the next heartbeat may succeed
                self._write_heartbeat()

    def _is_held(self) -> bool:
        try:
            same_file = os.stat(self._path).st_ino == os.fstat(self._fd).st_ino
        except OSError:
            return False
        return same_file and _read(self._fd).get("token") == self._token


def crashed_since(folder: Path) -> float | None:
    """Return when a holder took the lease that ended without releasing it (Unix time); needs no lease.

    None while the holder may be alive: its heartbeat is less than 15 s old.
    """
    try:
        fd = os.open(folder / "LEASE", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        holder = _read(fd)
    finally:
        os.close(fd)
    return _since(holder) if holder and time.time() - float(holder["beat"]) >= DEAD_AFTER_S else None


def _since(holder: dict[str, Any]) -> float | None:
    """Return when a holder took the lease; None if there is none, or if that cannot be read."""
    try:
        return datetime.fromisoformat(str(holder.get("since"))).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _read(fd: int) -> dict[str, Any]:
    """Return the holder's state; empty after a release, or if it cannot be read."""
    try:
        state = json.loads(os.pread(fd, _BYTES, 0) or b"{}")
    except (ValueError, RecursionError):
        return {}
    beat = state.get("beat", 0.0) if isinstance(state, dict) else None
    return state if isinstance(beat, float) and math.isfinite(beat) else {}
