"""Files of a store that are named by the digest of their contents: learned artifacts, and cards.

They are written once, before anything names them, and never change. Versions of a store may share them.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

from storage.durable import explain_write_errors
from storage.errors import CorruptStore, InvalidBatch
from storage.layout import ARTIFACTS_FOLDER
from storage.objects.bucket_path import BucketPath
from storage.objects.files import Location, ensure_folder, file_states, read_bounded, write_file

__all__ = [
    "MAX_ARTIFACT_BYTES",
    "digests_in",
    "named_file",
    "read_artifact",
    "read_named",
    "write_artifact",
    "write_named",
]

MAX_ARTIFACT_BYTES = 1 << 28
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


def write_artifact(folder: Location, data: bytes) -> str:
    """Write an artifact durably; to be done before a card that names it.

    Args:
        folder: The store's folder.
        data: Contents, at most `MAX_ARTIFACT_BYTES`.

    Returns:
        Their SHA-256 as hex digits.

    Raises:
        InvalidBatch: the contents are too large.
        OutOfSpace: the disk is full.
        NotWritable: the store is on a read-only file system, or belongs to another user.
    """
    if len(data) > MAX_ARTIFACT_BYTES:
        raise InvalidBatch(
            f"an artifact of {len(data)} bytes is too large for a store: give at most {MAX_ARTIFACT_BYTES}"
        )
    return write_named(folder / ARTIFACTS_FOLDER, data)


def read_artifact(folder: Location, sha256: str) -> bytes:
    """Return the contents of an artifact, which match their digest.

    Raises:
        CorruptStore: it is missing, damaged, too large or a link, or the name is not a digest.
        NotReadable: this user may not read it.
    """
    return read_named(folder / ARTIFACTS_FOLDER, sha256, max_bytes=MAX_ARTIFACT_BYTES)


def write_named(folder: Location, data: bytes, *, suffix: str = "") -> str:
    """Write a file under the digest of its contents, durably, unless it is there already; return the digest.

    Args:
        folder: A folder of the store; created if missing.
        data: The contents.
        suffix: End of the name.
    """
    digest = hashlib.sha256(data).hexdigest()
    path = named_file(folder, digest, suffix)
    with explain_write_errors(path, len(data)):
        ensure_folder(folder)
    try:
        if read_named(folder, digest, max_bytes=len(data), suffix=suffix) == data:
            return digest
    except CorruptStore:
        if isinstance(path, Path) and (path.is_symlink() or (path.exists() and not path.is_file())):
            raise
        # It is missing or damaged: written anew.
    write_file(path, data)
    return digest


def read_named(folder: Location, sha256: str, *, max_bytes: int, suffix: str = "") -> bytes:
    """Return the contents of a file that is named by their digest; arguments as of `write_named`.

    Raises:
        CorruptStore: it is missing, damaged, larger than `max_bytes` or a link, or the name is no digest.
        NotReadable: this user may not read it.
    """
    path = named_file(folder, sha256, suffix)
    advice = "restore it from a backup, or index into a new store"
    try:
        data = read_bounded(path, max_bytes, advice=advice)
    except FileNotFoundError:
        raise CorruptStore(f"{path} is missing: {advice}") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CorruptStore(f"{path} is damaged: {advice}")
    return data


def named_file(folder: Location, sha256: str, suffix: str = "") -> Location:
    """Return the path of a file that is named by a digest.

    Raises:
        CorruptStore: the name is not a digest, so it may lead anywhere.
    """
    if not isinstance(sha256, str) or not _DIGEST.fullmatch(sha256):
        raise CorruptStore(
            f"{str(sha256)[:80]!r} is not a SHA-256: restore the store from a backup, or index into a new one"
        )
    return folder / f"{sha256}{suffix}"


def digests_in(folder: Location, suffix: str = "") -> list[str]:
    """Return the digests that regular files in a folder of the store are named by, sorted."""
    if isinstance(folder, BucketPath):
        files = list(file_states(folder))
    else:
        try:
            with os.scandir(folder) as entries:
                modes = {each.name: each.stat(follow_symlinks=False).st_mode for each in entries}
            files = [name for name, mode in modes.items() if stat.S_ISREG(mode)]
        except FileNotFoundError:
            return []
    names = (name.removesuffix(suffix) for name in files if name.endswith(suffix))
    return sorted(name for name in names if _DIGEST.fullmatch(name))
