"""Single files of a store, in a folder or in a bucket: reading, writing, listing and removing them.

With the type `Location` this is where the two are told apart; what lies above works on either.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from storage.durable import explain_write_errors, flush, replace_file, replacing
from storage.objects.bucket_path import BucketPath
from storage.objects.protocol import ByteRange
from storage.regular_files import read_regular

__all__ = [
    "FileState",
    "Location",
    "all_exist",
    "ensure_folder",
    "exists",
    "file_names",
    "file_sha256",
    "file_states",
    "read_bounded",
    "remove_files",
    "write_file",
    "write_parts",
]

Location: TypeAlias = Path | BucketPath

_CHUNK_BYTES = 8 << 20


class FileState(NamedTuple):
    """Size in bytes, and when it was written in seconds since 1970."""

    size: int
    modified_s: float


def read_bounded(path: Location, max_bytes: int, *, advice: str = "restore it from a backup") -> bytes:
    """Return the contents of one of the store's files.

    Args:
        path: The file.
        max_bytes: No more is read.
        advice: The end of the message if it cannot be used.

    Raises:
        FileNotFoundError: there is none.
        NotReadable: this user may not read it.
        CorruptStore: it is a link, not a regular file, larger than `max_bytes`, or cannot be read.
    """
    if isinstance(path, BucketPath):
        return path.objects.get(path.key, max_bytes).data
    return read_regular(path, max_bytes, advice=advice)


def write_file(path: Location, data: bytes, *, fault: str | None = None) -> None:
    """Write a file atomically and durably; see `storage.durable.replace_file`."""
    if isinstance(path, BucketPath):
        path.objects.put(path.key, data)
    else:
        replace_file(path, data, fault=fault)


def write_parts(path: Location, parts: Iterable[bytes]) -> None:
    """Write a file atomically and durably from its parts; for a bucket they are joined in memory."""
    if isinstance(path, BucketPath):
        path.objects.put(path.key, b"".join(parts))
        return
    with replacing(path) as file:
        for part in parts:
            file.write(part)


def ensure_folder(folder: Location) -> None:
    """Create a folder of a store, durably, unless it is there; a bucket needs none."""
    if isinstance(folder, Path) and not folder.is_dir():
        folder.mkdir()
        flush(folder.parent)


def exists(path: Location) -> bool:
    """Return whether there is a regular file, in a folder also behind a link."""
    return all_exist([path]) if isinstance(path, BucketPath) else path.is_file()


def all_exist(paths: Sequence[Location]) -> bool:
    """Return whether all of these files exist; in a bucket they are asked for in parallel."""
    keys = [ByteRange(path.key, 0, 1) for path in paths if isinstance(path, BucketPath)]
    if keys:
        first = next(path for path in paths if isinstance(path, BucketPath))
        return None not in first.objects.get_ranges(keys)
    return all(path.is_file() for path in paths if isinstance(path, Path))


def file_names(folder: Location) -> list[str]:
    """Return the names directly in a folder, folders among them; none if it does not exist."""
    if isinstance(folder, BucketPath):
        prefix = f"{folder.key}/" if folder.key else ""
        below = (each.name.removeprefix(prefix) for each in folder.objects.list(folder.key))
        return list(dict.fromkeys(name.split("/")[0] for name in below))
    return os.listdir(folder) if folder.is_dir() else []


def file_states(folder: Location) -> dict[str, FileState]:
    """Return the files directly in a folder, links among them; none if it does not exist."""
    if isinstance(folder, BucketPath):
        prefix = f"{folder.key}/" if folder.key else ""
        return {
            each.name.removeprefix(prefix): FileState(each.size, each.modified_s)
            for each in folder.objects.list(folder.key)
            if "/" not in each.name.removeprefix(prefix)
        }
    states = {}
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return {}
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            try:
                state = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # a writer is at work
                continue
            states[entry.name] = FileState(state.st_size, state.st_mtime)
    return states


def remove_files(paths: Iterable[Location]) -> None:
    """Remove files.

    Raises:
        NotWritable: the store is read-only, or belongs to another user.
    """
    paths = list(paths)
    keys = [path for path in paths if isinstance(path, BucketPath)]
    if keys:
        keys[0].objects.delete(path.key for path in keys)
    for path in paths:
        if isinstance(path, Path):
            with explain_write_errors(path.parent, 0):
                path.unlink()


def file_sha256(path: Location) -> str:
    """Return the SHA-256 of a file as hex digits.

    Raises:
        FileNotFoundError: there is none.
    """
    if isinstance(path, Path):
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest, at = hashlib.sha256(), 0
    while True:
        chunk = path.objects.get_range(path.key, at, _CHUNK_BYTES)
        digest.update(chunk)
        at += len(chunk)
        if len(chunk) < _CHUNK_BYTES:
            return digest.hexdigest()
