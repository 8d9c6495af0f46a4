"""The write lock of a store in a bucket: an object that only one writer at a time can replace.

No clocks are compared: a holder counts as dead when the object has not changed for 15 s of the watcher's own
monotonic clock. The object is never removed, so that its epoch only grows.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from storage.commit.lease import DEAD_AFTER_S, HEARTBEAT_S
from storage.errors import CorruptStore, StoreError, StoreLocked
from storage.json_values import parse_object, whole_number
from storage.objects.bucket_path import BucketPath
from storage.objects.protocol import ConditionFailed, Tagged

__all__ = ["BucketLease"]

_POLL_S = 0.5
_MAX_BYTES = 1 << 12
_MAX_EPOCH = 2**53


class BucketLease:
    """The write lock of a store in a bucket, as a context manager.

    Attributes:
        since: When the lease was taken, by this machine's clock, for people.
        epoch: Number of this lease; every later one has a greater number.
        crashed_since: None: in a bucket nobody knows whether a holder that went is dead or paused.
        seized: Whether the holder before did not release it: it may be paused and wake up.
    """

    def __init__(
        self,
        location: BucketPath,
        *,
        timeout_s: float = 0.0,
        heartbeat_s: float = HEARTBEAT_S,
        dead_after_s: float = DEAD_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the lease of the store at `location`.

        Args:
            location: The store.
            timeout_s: How long taking it waits for a holder that is alive.
            heartbeat_s: Seconds between heartbeats.
            dead_after_s: Seconds without one after which a holder counts as dead.
            clock: Seconds; a monotonic clock.
        """
        self._path = location / "LEASE"
        self._timeout_s, self._heartbeat_s, self._dead_after_s = timeout_s, heartbeat_s, dead_after_s
        self._clock = clock
        self._nonce = uuid.uuid4().hex
        self._beat = 0
        self._tag = ""
        self._valid_until = 0.0
        self._lost = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.since = datetime.now(UTC)
        self.epoch = 0
        self.crashed_since: float | None = None
        self.seized = False

    def __enter__(self) -> Self:
        """Take the lease; a dead holder's only after 15 s in which nothing moved.

        Raises:
            StoreLocked: another writer holds it.
            StorageUnreachable, StorageForbidden, StorageThrottled: the bucket does not answer.
        """
        started = self._clock()
        watched, unchanged_since = "", started
        while True:
            current = self._read()
            state = _parse(current)
            if state is None or state["released"]:
                if self._take(current, state):
                    break
                continue
            now = self._clock()
            if current is not None and current.tag != watched:
                moved, watched, unchanged_since = bool(watched), current.tag, now
                if moved and now - started >= self._timeout_s:
                    raise StoreLocked(
                        f"{self._path.parent} is being written by process {state.get('pid', '?')} on host "
                        f"{state.get('host', '?')} since {state.get('since', '?')}: wait for it, or stop it"
                    )
            elif now - unchanged_since >= self._dead_after_s and self._take(current, state):
                break
            self._stop.wait(min(_POLL_S, self._dead_after_s / 10))
        self._thread = threading.Thread(target=self._run_heartbeat, name="placeray-lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lease; the object stays, and with it the epoch."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if not self._lost:
            with contextlib.suppress(ConditionFailed, StoreError):  # then it is taken for dead after 15 s
                self._path.objects.put_if_match(self._path.key, self._state(released=True), self._tag)

    def check(self) -> None:
        """Check that the lease is still held.

        Raises:
            StoreLocked: another writer took it over, or may have: there was no heartbeat for too long.
        """
        if self._lost or self._clock() > self._valid_until:
            raise StoreLocked(
                f"the lease {self._path} was taken over by another writer, or may have been; nothing was "
                "written: run the same command again when it is done"
            )

    def confirm(self) -> None:
        """Ask the bucket whether the lease is still held, for a write that carries no condition of its own.

        Raises:
            StoreLocked: another writer took it over.
        """
        self.check()
        state = _parse(self._read())
        if state is None or state.get("nonce") != self._nonce:
            self._lost = True
            self.check()

    def _read(self) -> Tagged | None:
        try:
            return self._path.objects.get(self._path.key, _MAX_BYTES)
        except FileNotFoundError:
            return None

    def _take(self, current: Tagged | None, state: dict[str, Any] | None) -> bool:
        """Take the lease in its present state; return False if another writer was faster."""
        self.epoch = (state["epoch"] if state else 0) + 1
        self.since = datetime.now(UTC)
        started = self._clock()
        try:
            if current is None:
                self._tag = self._path.objects.put_if_absent(self._path.key, self._state())
            else:
                self._tag = self._path.objects.put_if_match(self._path.key, self._state(), current.tag)
        except ConditionFailed:
            return False
        self._valid_until = started + self._dead_after_s
        self.seized = state is None or not state["released"]
        return True

    def _state(self, *, released: bool = False) -> bytes:
        self._beat += 1
        state = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": self.since.isoformat(timespec="seconds"),
            "nonce": self._nonce,
            "epoch": self.epoch,
            "beat": self._beat,
            "released": released,
        }
        return json.dumps(state).encode()

    def _run_heartbeat(self) -> None:
        while not self._stop.wait(self._heartbeat_s):
            started = self._clock()
            try:
                self._tag = self._path.objects.put_if_match(self._path.key, self._state(), self._tag)
            except ConditionFailed:
                self._lost = True
                return
            except StoreError:  # the next heartbeat may come through
                continue
            self._valid_until = started + self._dead_after_s


def _parse(current: Tagged | None) -> dict[str, Any] | None:
    """Return the state of the lease; None if there has never been one."""
    if current is None:
        return None
    try:
        state = parse_object(current.data)
        state["epoch"] = whole_number(state["epoch"], 1, _MAX_EPOCH)
        state["released"] = state.get("released") is True
    except (ValueError, KeyError) as error:
        raise CorruptStore(
            f"LEASE cannot be read ({error}): check that no other program writes into the store's prefix, "
            "then remove that object"
        ) from error
    return state
