"""What has been acknowledged: the COMMITTED file, and SHA256SUMS over the table's files."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from storage.durable import detect_full_disk, flush, replace_file
from storage.errors import CorruptStore
from storage.fault_points import fault_point
from storage.table.lance_table import TABLE_FOLDER, manifest_name

__all__ = [
    "Committed",
    "acknowledge",
    "check_manifests",
    "file_sha256",
    "foreign_manifests",
    "manifests",
    "read_committed",
    "read_sums",
    "table_files",
    "write_sums",
]

_VERSIONS = f"{TABLE_FOLDER}/_versions"
# Data first, manifests last: a manifest on disk must never name a data file that is not. LanceDB gets along
# with torn transaction files and a torn version hint, so these are left to the system.
_FOLDERS = ("data", "_deletions", "_indices", "_versions")
# LanceDB's own temporary names: ".tmp..." for all files, "<manifest>#1" for manifests.
_MANIFEST = re.compile(r"(\d{20})\.manifest")
_EXPECTED = re.compile(r"\..*|\d{20}\.manifest#\d+|latest_version_hint\.json")
_SUM_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


@dataclass(frozen=True)
class Committed:
    """The newest acknowledged version.

    Attributes:
        version: Its number.
        rows: How many rows it has.
        manifest_sha256: Digest of its manifest.
    """

    version: int
    rows: int
    manifest_sha256: str


def read_committed(folder: Path) -> Committed | None:
    """Return what is acknowledged; None where nothing ever was.

    Raises:
        CorruptStore: the file cannot be read.
    """
    try:
        values = json.loads((folder / "COMMITTED").read_bytes())
        return Committed(int(values["version"]), int(values["rows"]), str(values["manifest_sha256"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptStore(f"{folder / 'COMMITTED'} cannot be read ({error}): {_repair(folder)}") from error


def acknowledge(folder: Path, version: int, rows: int, *, known: set[str]) -> Committed:
    """Bring a version down to disk and declare it: its new files, their digests, then COMMITTED.

    Args:
        folder: The store's folder.
        version: A version that LanceDB has written.
        rows: How many rows it has.
        known: Relative names of the table's files brought down before; grows by the new ones.

    Raises:
        OutOfSpace: the disk is full; the version before stays the acknowledged one.
    """
    new = table_files(folder, known)
    lines = []
    for name in new:
        path = folder / name
        flush(path)
        lines.append(f"{file_sha256(path)}  {name}\n")
    for parent in dict.fromkeys((folder / name).parent for name in new):
        flush(parent)
    with detect_full_disk(folder / "SHA256SUMS", 128 * len(lines)), open(folder / "SHA256SUMS", "ab") as file:
        file.write("".join(lines).encode())
        file.flush()
        os.fsync(file.fileno())
    known.update(new)
    fault_point("after_sync")
    committed = Committed(version, rows, file_sha256(folder / _VERSIONS / manifest_name(version)))
    text = json.dumps(committed.__dict__, sort_keys=True) + "\n"
    replace_file(folder / "COMMITTED", text.encode(), fault="before_committed")
    fault_point("after_committed")
    return committed


def table_files(folder: Path, known: Collection[str] = ()) -> list[str]:
    """Return the table's files that are not `known`, relative to the store, as they must reach the disk."""
    found = []
    for name in _FOLDERS:
        top = f"{TABLE_FOLDER}/{name}/"
        new = [top + file for file in _names(folder / top) if top + file not in known and file[0] != "."]
        if name == "_indices":
            paths = [path for parent in new for path in (folder / parent).iterdir()]
            new = [top + path.relative_to(folder / top).as_posix() for path in paths if path.name[0] != "."]
            new = [file for file in new if file not in known]
        elif name == "_versions":
            new = [file for file in new if _MANIFEST.fullmatch(file.removeprefix(top))]
        found += new
    return found


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def manifests(folder: Path) -> list[int]:
    """Return the versions whose manifests exist, oldest first."""
    names = _names(folder / _VERSIONS)
    found = [2**64 - 1 - int(match[1]) for name in names if (match := _MANIFEST.fullmatch(name))]
    return sorted(found)


def foreign_manifests(folder: Path) -> list[str]:
    """Return names among the manifests that LanceDB did not write."""
    names = _names(folder / _VERSIONS)
    foreign = [name for name in names if not _EXPECTED.fullmatch(name) and not _MANIFEST.fullmatch(name)]
    return foreign + [manifest_name(v) for v in manifests(folder) if not 0 < v < 2**48]


def check_manifests(folder: Path, committed: Committed) -> None:
    """Make sure that the acknowledged manifest is there, unchanged, and alone with its kind.

    Raises:
        CorruptStore: it is not; nothing older is ever taken instead.
    """
    foreign = foreign_manifests(folder)
    if foreign:
        raise CorruptStore(f"{folder / _VERSIONS} holds foreign files {foreign[:3]}: {_repair(folder)}")
    path = folder / _VERSIONS / manifest_name(committed.version)
    if not path.exists():
        raise CorruptStore(f"{path}: the acknowledged version {committed.version} is gone: {_repair(folder)}")
    if file_sha256(path) != committed.manifest_sha256:
        raise CorruptStore(
            f"{path}: the acknowledged version {committed.version} is damaged: {_repair(folder)}"
        )


def read_sums(folder: Path) -> dict[str, str]:
    """Return the recorded digest of each of the table's files; a line cut short by a crash is skipped."""
    path = folder / "SHA256SUMS"
    text = path.read_text(errors="replace") if path.exists() else ""
    matches = (_SUM_LINE.fullmatch(line) for line in text.splitlines())
    return {match[2]: match[1] for match in matches if match}


def write_sums(folder: Path, names: Iterable[str] | None = None) -> None:
    """Record digests anew: of `names` as they are recorded, or of all the table's files as they are."""
    if names is None:
        sums = {name: file_sha256(folder / name) for name in table_files(folder)}
    else:
        recorded = read_sums(folder)
        sums = {name: recorded[name] for name in names if name in recorded}
    text = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
    replace_file(folder / "SHA256SUMS", text.encode())


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _repair(folder: Path) -> str:
    return f"run placeray verify --store {folder} --repair"
