"""Where a store's files are: nothing named in a store leads outside it or through a link.

A store may come from somebody else. Names that are read from it are data: they are compared with the patterns
that placeray itself writes before they become part of a path, and files are opened only if they are regular
files, without following links.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from storage.errors import CorruptStore, NotReadable, repair_command

__all__ = [
    "ARTIFACTS_FOLDER",
    "CALIBRATION_FILE",
    "CARDS_FOLDER",
    "CARD_FILE",
    "FEATURES_FOLDER",
    "OWN_PHOTOS_FILE",
    "QUARANTINE_FOLDER",
    "TABLE_FOLDER",
    "check_layout",
    "check_table_files",
    "is_shard_name",
    "is_table_file_name",
    "is_temporary_shard",
    "open_regular",
    "read_bounded",
    "shard_file_name",
    "table_file",
]

CARD_FILE = "card.json"
CALIBRATION_FILE, OWN_PHOTOS_FILE = "calibration.json", "places.json"
FEATURES_FOLDER, TABLE_FOLDER, QUARANTINE_FOLDER = "features", "records.lance", "quarantine"
CARDS_FOLDER, ARTIFACTS_FOLDER = "cards", "artifacts"  # files named by the digest of their contents
_TABLE_FOLDERS = ("data", "_deletions", "_indices", "_versions", "_transactions", "_refs")
_FOLDERS = (
    *(FEATURES_FOLDER, QUARANTINE_FOLDER, TABLE_FOLDER, CARDS_FOLDER, ARTIFACTS_FOLDER),
    *(f"{TABLE_FOLDER}/{name}" for name in _TABLE_FOLDERS),
)
_FILES = (
    *(CARD_FILE, "COMMITTED", "SHA256SUMS", "LEASE", "rejected.csv", "notes.csv"),
    *(CALIBRATION_FILE, OWN_PHOTOS_FILE),
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


def table_file(folder: Path, name: str) -> Path:
    """Return the path of one of the table's files.

    Args:
        folder: The store's folder.
        name: Relative to it, as SHA256SUMS has it.

    Raises:
        CorruptStore: the name leads elsewhere, or through a link.
    """
    if not is_table_file_name(name):
        raise CorruptStore(f"{name[:80]!r} is not a file of the table: {repair_command(folder)}")
    path = folder / name
    for part in (*reversed(path.relative_to(folder).parents[:-1]), path.relative_to(folder)):
        if stat.S_ISLNK(_mode(folder / part) or 0):
            raise _not_allowed(folder / part, "is a link")
    return path


def check_layout(folder: Path) -> None:
    """Check that the store's own files are regular files, and its own folders folders; what is absent may be.

    Raises:
        CorruptStore: one of them is a link, or of another kind.
    """
    for names, expected, kind in ((_FOLDERS, stat.S_IFDIR, "folder"), (_FILES, stat.S_IFREG, "regular file")):
        for name in names:
            mode = _mode(folder / name)
            if mode is not None and stat.S_IFMT(mode) != expected:
                raise _not_allowed(folder / name, "is a link" if stat.S_ISLNK(mode) else f"is not a {kind}")


def check_table_files(folder: Path) -> None:
    """Check that there are only regular files and folders in the table, and among the cards and artifacts.

    LanceDB opens the table's files by itself.

    Raises:
        CorruptStore: there is a link, a device, a pipe or a socket.
    """
    check_layout(folder)
    for name in (TABLE_FOLDER, CARDS_FOLDER, ARTIFACTS_FOLDER):
        for entry in _walk(folder / name):
            if entry.is_symlink():
                raise _not_allowed(Path(entry.path), "is a link")
            if not entry.is_file(follow_symlinks=False) and not entry.is_dir(follow_symlinks=False):
                raise _not_allowed(Path(entry.path), "is not a regular file")


def open_regular(path: str | os.PathLike[str]) -> int:
    """Open a regular file for reading, without following a link or waiting for a pipe; return its descriptor.

    Raises:
        OSError: it cannot be opened; ELOOP if it is a link, EINVAL if it is not a regular file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return fd


def read_bounded(path: Path, max_bytes: int, *, advice: str = "restore it from a backup") -> bytes:
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
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            data = file.read(max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except PermissionError as error:
        raise NotReadable(
            f"{path} cannot be read ({error.strerror}): give this user access to the store"
        ) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _not_allowed(path, "is a link") from error
        raise CorruptStore(f"{path} cannot be read ({error.strerror}): {advice}") from error
    if len(data) > max_bytes:
        raise CorruptStore(f"{path} is larger than {max_bytes} bytes, which placeray never writes: {advice}")
    return data


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


def _not_allowed(path: Path, what: str) -> CorruptStore:
    return CorruptStore(
        f"{path} {what}, which has no place in a store: remove it, or put the file or folder itself there "
        "(another disk: mount --bind)"
    )
