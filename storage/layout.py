"""Where a store's files are: nothing named in a store leads outside it or through a link.

A store may come from somebody else. Names that are read from it are data: they are compared with the patterns
that placeray itself writes before they become part of a path, and files are opened only if they are regular
files, without following links.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from storage.errors import CorruptStore, NotReadable, repair_command
from storage.objects.bucket_path import BucketPath
from storage.objects.files import Location
from storage.regular_files import not_allowed

__all__ = [
    "ARTIFACTS_FOLDER",
    "CALIBRATION_FILE",
    "CARDS_FOLDER",
    "CARD_FILE",
    "FEATURES_FOLDER",
    "HISTORY_FILE",
    "INDEX_BUILD_FILE",
    "LISTS",
    "OWN_PHOTOS_FILE",
    "QUARANTINE_FOLDER",
    "TABLE_FOLDER",
    "TAGS_FILE",
    "check_layout",
    "check_table_files",
    "is_shard_name",
    "is_table_file_name",
    "is_temporary_shard",
    "shard_file_name",
    "table_file",
]

CARD_FILE = "card.json"
HISTORY_FILE, TAGS_FILE = "HISTORY", "TAGS"
INDEX_BUILD_FILE = "index_build.json"
LISTS = ("rejected.csv", "notes.csv")
CALIBRATION_FILE, OWN_PHOTOS_FILE = "calibration.json", "places.json"
FEATURES_FOLDER, TABLE_FOLDER, QUARANTINE_FOLDER = "features", "records.lance", "quarantine"
CARDS_FOLDER, ARTIFACTS_FOLDER = "cards", "artifacts"  # files named by the digest of their contents
_TABLE_FOLDERS = ("data", "_deletions", "_indices", "_versions", "_transactions", "_refs")
_FOLDERS = (
    *(FEATURES_FOLDER, QUARANTINE_FOLDER, TABLE_FOLDER, CARDS_FOLDER, ARTIFACTS_FOLDER),
    *(f"{TABLE_FOLDER}/{name}" for name in _TABLE_FOLDERS),
)
_FILES = (
    *(CARD_FILE, "COMMITTED", "SHA256SUMS", "LEASE", *LISTS),
    *(CALIBRATION_FILE, OWN_PHOTOS_FILE, HISTORY_FILE, TAGS_FILE, INDEX_BUILD_FILE),
)

# As `write_shard` makes them: 32 hex digits, then the CRC-32 of the file.
_SHARD = re.compile(r"[0-9a-f]{32}-[0-9a-f]{8}", re.ASCII)
_TEMPORARY_SHARD = re.compile(r"\.[0-9a-f]{1,32}\.tmp", re.ASCII)
# As LanceDB names its files. No component begins with a dot, so that none can be "..".
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.#-]{0,199}"
_TABLE_FILE = re.compile(
    rf"{re.escape(TABLE_FOLDER)}/(?:(?:data|_deletions|_versions)/{_PART}|_indices/{_PART}/{_PART})", re.ASCII
)


def is_shard_name(name: object) -> bool:
    """Return whether a name is one that `write_shard` could have given."""
    return isinstance(name, str) and _SHARD.fullmatch(name) is not None


def is_temporary_shard(file_name: str) -> bool:
    """Return whether a file in the features folder is a shard that was being written."""
    return _TEMPORARY_SHARD.fullmatch(file_name) is not None


def is_table_file_name(name: str) -> bool:
    """Return whether a name, relative to the store, is one of the table's files as LanceDB names them."""
    return _TABLE_FILE.fullmatch(name) is not None


def shard_file_name(shard: object) -> str:
    """Return the file name of a shard.

    Raises:
        CorruptStore: the name is not one that `write_shard` could have given.
    """
    if not is_shard_name(shard):
        raise CorruptStore(
            f"{str(shard)[:80]!r} is not the name of a shard: run placeray verify with --repair on the store"
        )
    return f"{shard}.parquet"


def table_file(folder: Location, name: str) -> Location:
    """Return the path of one of the table's files.

    Args:
        folder: The store's folder.
        name: Relative to it, as SHA256SUMS has it.

    Raises:
        CorruptStore: the name leads elsewhere, or through a link.
    """
    if not is_table_file_name(name):
        raise CorruptStore(f"{name[:80]!r} is not a file of the table: {repair_command(folder)}")
    if isinstance(folder, BucketPath):
        return folder / name
    path = folder / name
    for part in (*reversed(path.relative_to(folder).parents[:-1]), path.relative_to(folder)):
        if stat.S_ISLNK(_mode(folder / part) or 0):
            raise not_allowed(folder / part, "is a link")
    return path


def check_layout(folder: Location) -> None:
    """Check that the store's own files are regular files, and its own folders folders; what is absent may be.

    A bucket has neither links nor folders.

    Raises:
        CorruptStore: one of them is a link, or of another kind.
    """
    if isinstance(folder, BucketPath):
        return
    for names, expected, kind in ((_FOLDERS, stat.S_IFDIR, "folder"), (_FILES, stat.S_IFREG, "regular file")):
        for name in names:
            mode = _mode(folder / name)
            if mode is not None and stat.S_IFMT(mode) != expected:
                raise not_allowed(folder / name, "is a link" if stat.S_ISLNK(mode) else f"is not a {kind}")


def check_table_files(folder: Location) -> None:
    """Check that there are only regular files and folders in the table, and among the cards and artifacts.

    LanceDB opens the table's files by itself.

    Raises:
        CorruptStore: there is a link, a device, a pipe or a socket.
    """
    if isinstance(folder, BucketPath):
        return
    check_layout(folder)
    for name in (TABLE_FOLDER, CARDS_FOLDER, ARTIFACTS_FOLDER):
        for entry in _walk(folder / name):
            if entry.is_symlink():
                raise not_allowed(Path(entry.path), "is a link")
            if not entry.is_file(follow_symlinks=False) and not entry.is_dir(follow_symlinks=False):
                raise not_allowed(Path(entry.path), "is not a regular file")


def _mode(path: Path) -> int | None:
    try:
        return os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise NotReadable(
            f"{path} cannot be read ({error.strerror}): give this user access to the store"
        ) from error


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    except PermissionError as error:
        raise NotReadable(
            f"{folder} cannot be read ({error.strerror}): give this user access to the store"
        ) from error
    for entry in entries:
        yield entry
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
