"""A cache on local disk for rows of local features and row tables that were read from a bucket.

Several processes may share it: an entry appears whole, by rename, and is checked by its reader, so nothing
here needs to survive a crash. The oldest entries go when the cache is full.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
from pathlib import Path

__all__ = ["DEFAULT_CACHE_BYTES", "DiskCache", "default_cache_folder"]

DEFAULT_CACHE_BYTES = 10 << 30
_KEEP = 0.9  # of the limit, after entries were removed
_COUNT_AGAIN = 0.05  # of the limit, written by this process


def default_cache_folder() -> Path:
    """Return `placeray` under the user's cache folder."""
    top = os.environ.get("XDG_CACHE_HOME") or os.path.join(Path.home(), ".cache")
    return Path(top, "placeray", "features")


class DiskCache:
    """Bytes by key, in files of one folder; threads may share it. On a read-only disk it stays empty."""

    def __init__(self, folder: Path, *, max_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        """Use a folder, created by the first entry.

        Args:
            folder: Of the cache, for every store.
            max_bytes: Size of all entries; 0 switches the cache off.
        """
        self.folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._written = int(_COUNT_AGAIN * max_bytes)  # so that the first entry counts what is there

    def get(self, key: str) -> bytes | None:
        """Return an entry; None if there is none. The caller checks its contents."""
        if not self._max_bytes:
            return None
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the least recently used go first
        return data

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Keep an entry; a full or read-only disk keeps none."""
        if len(data) > self._max_bytes // 10:
            return
        path = self._path(key)
        temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary.write_bytes(data)
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            return
        with self._lock:
            self._written += len(data)
            due = self._written >= _COUNT_AGAIN * self._max_bytes
            if due:
                self._written = 0
        if due:
            self._make_room()

    def drop(self, key: str) -> None:
        """Forget an entry that turned out damaged."""
        with contextlib.suppress(OSError):
            self._path(key).unlink()

    def _path(self, key: str) -> Path:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / digest[:2] / digest[2:40]

    def _make_room(self) -> None:
        """Remove the least recently used entries until the cache is well below its limit."""
        files: list[tuple[float, int, str]] = []
        with contextlib.suppress(OSError):
            for parent in os.scandir(self.folder):
                if parent.is_dir(follow_symlinks=False):
                    files += _entries(parent.path)
        total = sum(size for _, size, _ in files)
        if total <= self._max_bytes:
            return
        for _, size, path in sorted(files):
            with contextlib.suppress(OSError):
                os.unlink(path)
            total -= size
            if total <= _KEEP * self._max_bytes:
                return


def _entries(folder: str) -> list[tuple[float, int, str]]:
    found = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):
                state = entry.stat(follow_symlinks=False)
                found.append((state.st_mtime, state.st_size, entry.path))
    return found
