"""Objects in a folder of this machine: durable by fsync, atomic by rename."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from storage.durable import explain_write_errors, flush, replace_file
from storage.errors import NotReadable
from storage.objects.protocol import ByteRange, ConditionFailed, ObjectInfo, Tagged, check_name
from storage.regular_files import open_regular, read_regular

__all__ = ["LocalObjects"]


class LocalObjects:
    """The files under a folder, see `ObjectStore`. Links are not followed."""

    def __init__(self, folder: Path) -> None:
        """Use a folder; it is created by the first write."""
        self.folder = folder

    @property
    def shown(self) -> str:
        """The folder."""
        return os.fspath(self.folder)

    def get(self, name: str, max_bytes: int) -> Tagged:
        """See `ObjectStore.get`."""
        data = read_regular(self._path(name), max_bytes)
        return Tagged(data, _tag(data))

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """See `ObjectStore.get_range`."""
        try:
            fd = open_regular(self._path(name))
        except PermissionError as error:
            raise NotReadable(f"{self._path(name)} cannot be read: give this user access") from error
        try:
            at = start if start >= 0 else max(0, os.fstat(fd).st_size + start)
            return os.pread(fd, length, at)
        finally:
            os.close(fd)

    def get_ranges(self, ranges: Sequence[ByteRange]) -> list[bytes | None]:
        """See `ObjectStore.get_ranges`."""
        found: list[bytes | None] = []
        for wanted in ranges:
            try:
                found.append(self.get_range(*wanted))
            except FileNotFoundError:
                found.append(None)
        return found

    def put(self, name: str, data: bytes | memoryview) -> None:
        """See `ObjectStore.put`."""
        replace_file(self._prepared(name), bytes(data))

    def put_if_absent(self, name: str, data: bytes) -> str:
        """See `ObjectStore.put_if_absent`."""
        path = self._prepared(name)
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        with explain_write_errors(path, len(data)):
            try:
                with open(temporary, "xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.link(temporary, path)
                flush(path.parent)
            except FileExistsError:
                raise _changed(path) from None
            finally:
                temporary.unlink(missing_ok=True)
        return _tag(data)

    def put_if_match(self, name: str, data: bytes, tag: str) -> str:
        """See `ObjectStore.put_if_match`."""
        path = self._prepared(name)
        with _alone_in(path.parent):
            try:
                current = _tag(path.read_bytes())
            except FileNotFoundError:
                current = None
            if current != tag:
                raise _changed(path)
            replace_file(path, data)
        return _tag(data)

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """See `ObjectStore.list`. Files being written, whose names begin with a dot, are not objects yet."""
        top = self._path(prefix) if prefix else self.folder
        return sorted(_files(top, f"{prefix}/" if prefix else ""), key=lambda each: each.name)

    def delete(self, names: Iterable[str]) -> None:
        """See `ObjectStore.delete`."""
        parents = set()
        for name in names:
            path = self._path(name)
            with explain_write_errors(path, 0), contextlib.suppress(FileNotFoundError):
                path.unlink()
                parents.add(path.parent)
        for parent in parents:
            flush(parent)

    def _path(self, name: str) -> Path:
        return self.folder / check_name(name)

    def _prepared(self, name: str) -> Path:
        path = self._path(name)
        if not path.parent.is_dir():
            with explain_write_errors(path.parent, 0):
                path.parent.mkdir(parents=True, exist_ok=True)
                flush(path.parent.parent)
        return path


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _changed(path: Path) -> ConditionFailed:
    return ConditionFailed(f"{path} was changed by another writer: read it again")


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, which its writers share."""
    with explain_write_errors(folder, 0):
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _files(folder: Path, prefix: str) -> Iterator[ObjectInfo]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path), f"{prefix}{entry.name}/")
        elif not entry.name.startswith("."):
            try:
                state = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # removed meanwhile
                continue
            if stat.S_ISREG(state.st_mode):
                yield ObjectInfo(prefix + entry.name, state.st_size, state.st_mtime)
