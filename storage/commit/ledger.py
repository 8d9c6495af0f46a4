"""The acknowledged version (the file COMMITTED) and the digests of the table's files (SHA256SUMS)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from storage.commit.bucket_sums import read_all_sums, replace_sums
from storage.durable import explain_write_errors, flush, replace_file
from storage.errors import CorruptStore, repair_command
from storage.fault_points import fault_point
from storage.json_values import parse_object, whole_number
from storage.layout import TABLE_FOLDER, is_table_file_name
from storage.objects.bucket_path import BucketPath
from storage.objects.files import Location, file_names, file_sha256, read_bounded
from storage.table.index_trial import TRIAL_MANIFEST
from storage.table.lance_table import LanceTable, manifest_name

__all__ = [
    "Committed",
    "acknowledge",
    "check_manifests",
    "file_sha256",
    "foreign_manifests",
    "foreign_sums",
    "manifests",
    "parse_committed",
    "read_committed",
    "read_sums",
    "table_files",
    "write_sums",
]

_VERSIONS = f"{TABLE_FOLDER}/_versions"
# Data first, manifests last: a manifest on disk must never refer to a data file that is not. LanceDB
# tolerates torn transaction files and a torn version hint, so these are not flushed.
_FOLDERS = ("data", "_deletions", "_indices", "_versions")
# LanceDB's own temporary names: ".tmp..." for all files, "<manifest>#1" for manifests.
_MANIFEST = re.compile(r"(\d{20})\.manifest")
_IGNORED_NAME = re.compile(r"\..*|\d{20}\.manifest#\d+|latest_version_hint\.json|" + TRIAL_MANIFEST)
_SUM_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
_DIGEST = re.compile("[0-9a-f]{64}")
_MAX_VERSION, _MAX_ROWS = 2**48 - 1, 2**40
_COMMITTED_BYTES, _SUMS_BYTES = 1 << 16, 1 << 26  # half a million files


@dataclass(frozen=True)
class Committed:
    """The newest acknowledged version.

    Attributes:
        version: Its number.
        rows: How many rows it has.
        manifest_sha256: Digest of its manifest.
        card_sha256: Digest of its card; None: the one in card.json.
    """

    version: int
    rows: int
    manifest_sha256: str
    card_sha256: str | None = None

    def to_json(self) -> str:
        """Return the contents of COMMITTED."""
        values = {name: value for name, value in self.__dict__.items() if value is not None}
        return json.dumps(values, sort_keys=True) + "\n"


def read_committed(folder: Location) -> Committed | None:
    """Return the acknowledged version; None if there is none yet.

    Raises:
        CorruptStore: the file cannot be read.
    """
    try:
        data = _read(folder, "COMMITTED", _COMMITTED_BYTES)
    except FileNotFoundError:
        return None
    return parse_committed(folder, data)


def parse_committed(folder: Location, data: bytes) -> Committed:
    """Return what the contents of COMMITTED say.

    Raises:
        CorruptStore: they cannot be read.
    """
    try:
        values = parse_object(data)
        digest, card = values["manifest_sha256"], values.get("card_sha256")
        for name, value in (("manifest_sha256", digest), ("card_sha256", card)):
            absent = value is None and name not in values
            if not absent and not (isinstance(value, str) and _DIGEST.fullmatch(value)):
                raise ValueError(f"{name} is not a SHA-256")
        version = whole_number(values["version"], 1, _MAX_VERSION)
        return Committed(version, whole_number(values["rows"], 0, _MAX_ROWS), digest, card)
    except (ValueError, KeyError) as error:
        raise CorruptStore(
            f"{folder / 'COMMITTED'} cannot be read ({error}): {repair_command(folder)}"
        ) from error


def _read(folder: Location, name: str, max_bytes: int) -> bytes:
    return read_bounded(folder / name, max_bytes, advice=repair_command(folder))


def acknowledge(folder: Path, table: LanceTable, *, known: set[str]) -> Committed:
    """Flush a version to disk and acknowledge it with its card: its new files, their digests, then COMMITTED.

    Args:
        folder: The store's folder.
        table: A version that LanceDB has written.
        known: Relative names of the table's files that are flushed already; the new ones are added.

    Raises:
        OutOfSpace: the disk is full; the previous version stays the acknowledged one.
    """
    new = table_files(folder, known)
    lines = []
    for name in new:
        path = folder / name
        flush(path)
        lines.append(f"{file_sha256(path)}  {name}\n")
    for parent in dict.fromkeys((folder / name).parent for name in new):
        flush(parent)
    _append(folder / "SHA256SUMS", "".join(lines).encode())
    known.update(new)
    fault_point("after_sync")
    manifest = folder / _VERSIONS / manifest_name(table.version)
    committed = Committed(table.version, table.count(), file_sha256(manifest), table.card_sha256)
    replace_file(folder / "COMMITTED", committed.to_json().encode(), fault="before_committed")
    fault_point("after_committed")
    return committed


def _append(path: Path, data: bytes) -> None:
    with explain_write_errors(path, len(data)):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o666), "ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def table_files(folder: Location, known: Collection[str] = ()) -> list[str]:
    """Return the table's files that are not in `known`, relative to the store, in the order to flush them."""
    if isinstance(folder, BucketPath):
        listed = [each.name for each in folder.objects.list((folder / TABLE_FOLDER).key)]
        return [name for name in listed if is_table_file_name(name) and name not in known]
    files = []
    for name in _FOLDERS:
        top = f"{TABLE_FOLDER}/{name}/"
        new = [top + file for file in file_names(folder / top) if top + file not in known and file[0] != "."]
        if name == "_indices":
            paths = [path for parent in new for path in (folder / parent).iterdir()]
            new = [top + path.relative_to(folder / top).as_posix() for path in paths if path.name[0] != "."]
            new = [file for file in new if file not in known]
        elif name == "_versions":
            new = [file for file in new if _MANIFEST.fullmatch(file.removeprefix(top))]
        files += new
    return files


def manifests(folder: Location) -> list[int]:
    """Return the versions whose manifests exist, oldest first."""
    names = file_names(folder / _VERSIONS)
    return sorted(2**64 - 1 - int(match[1]) for name in names if (match := _MANIFEST.fullmatch(name)))


def foreign_manifests(folder: Location) -> list[str]:
    """Return the files next to the manifests that LanceDB did not write."""
    names = file_names(folder / _VERSIONS)
    foreign = [name for name in names if not _IGNORED_NAME.fullmatch(name) and not _MANIFEST.fullmatch(name)]
    return foreign + [manifest_name(v) for v in manifests(folder) if not 0 < v <= _MAX_VERSION]


def check_manifests(folder: Location, committed: Committed) -> None:
    """Check that the acknowledged manifest exists unchanged, and that there are no foreign files.

    In a bucket versions are opened by their number, so that foreign files cannot be taken for one.

    Raises:
        CorruptStore: they are not as expected; no older version is used instead.
    """
    foreign = foreign_manifests(folder) if isinstance(folder, Path) else []
    if foreign:
        raise CorruptStore(
            f"{folder / _VERSIONS} contains foreign files {foreign[:3]}: {repair_command(folder)}"
        )
    path = folder / _VERSIONS / manifest_name(committed.version)
    try:
        digest = file_sha256(path)
    except FileNotFoundError:
        raise CorruptStore(
            f"{path}: the acknowledged version {committed.version} is missing: {repair_command(folder)}"
        ) from None
    if digest != committed.manifest_sha256:
        raise CorruptStore(
            f"{path}: the acknowledged version {committed.version} is damaged: {repair_command(folder)}"
        )


def read_sums(folder: Location) -> dict[str, str]:
    """Return the recorded digest of each of the table's files.

    A line that a crash truncated is skipped, and one that names anything else, see `foreign_sums`.

    Raises:
        CorruptStore: the file is a link, or larger than placeray writes it.
    """
    return {name: digest for name, digest in _sum_lines(folder) if is_table_file_name(name)}


def foreign_sums(folder: Location) -> list[str]:
    """Return the names in SHA256SUMS that are not those of the table's files; they are never opened.

    Raises:
        CorruptStore: the file is a link, or larger than placeray writes it.
    """
    return [name for name, _ in _sum_lines(folder) if not is_table_file_name(name)]


def _sum_lines(folder: Location) -> Iterator[tuple[str, str]]:
    if isinstance(folder, BucketPath):
        text = read_all_sums(folder)
    else:
        try:
            text = _read(folder, "SHA256SUMS", _SUMS_BYTES).decode(errors="replace")
        except FileNotFoundError:
            return
    for line in text.split("\n"):
        if match := _SUM_LINE.fullmatch(line):
            yield match[2], match[1]


def write_sums(folder: Location, names: Iterable[str] | None = None) -> None:
    """Rewrite SHA256SUMS: with the recorded digests of `names`, or new ones of all the table's files."""
    if names is None:
        sums = {name: file_sha256(folder / name) for name in table_files(folder)}
    else:
        recorded = read_sums(folder)
        sums = {name: recorded[name] for name in names if name in recorded}
    text = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
    if isinstance(folder, BucketPath):
        replace_sums(folder, max(manifests(folder), default=0), text)
    else:
        replace_file(folder / "SHA256SUMS", text.encode())
