"""Who changed a store, when and how: a line of HISTORY for each acknowledged version.

Objects cannot be appended to: in a bucket each line is an object of its own until `compact` joins
them.
For people only: nothing depends on it, and a line that cannot be written is left out.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import secrets
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from storage.errors import StoreError
from storage.json_values import parse_object, whole_number
from storage.layout import HISTORY_FILE
from storage.objects.files import Location, read_bounded, write_file
from storage.objects.protocol import ByteRange
from storage.text import plain

__all__ = ["LoggedChange", "log_change", "read_changes", "shorten_changes"]

_LINES_FOLDER, _MAX_LINE_BYTES = "history", 1 << 12
_LINE_NAME = re.compile(r"\d{20}-[0-9a-f]{8}\.json", re.ASCII)
_MAX_BYTES, _KEPT_LINES, _MAX_TEXT = 1 << 26, 10_000, 200


@dataclass(frozen=True)
class LoggedChange:
    """One acknowledged change.

    Attributes:
        version: The version that it made.
        at: When, as an ISO time in UTC.
        by: Who, as user@host.
        change: What, in words.
    """

    version: int
    at: str
    by: str
    change: str


def log_change(folder: Location, version: int, change: str) -> None:
    """Add a line."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    values = {"version": version, "at": now, "by": f"{_user()}@{socket.gethostname()}", "change": change}
    line = (json.dumps(values, sort_keys=True) + "\n").encode()
    # The version is acknowledged; a full disk or a silent bucket must not undo that.
    with contextlib.suppress(OSError, StoreError):
        if not isinstance(folder, Path):
            path = folder / _LINES_FOLDER / f"{version:020d}-{secrets.token_hex(4)}.json"
            path.objects.put(path.key, line)
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(folder / HISTORY_FILE, flags, 0o666), "ab") as file:
            file.write(line)


def read_changes(folder: Location) -> dict[int, LoggedChange]:
    """Return the newest change that made each version; lines that cannot be read are left out.

    Raises:
        CorruptStore: the file is a link, or larger than placeray writes it.
    """
    changes = {}
    for line in [*_lines(folder), *_lines_apart(folder).values()]:
        with contextlib.suppress(ValueError, KeyError):
            values = parse_object(line)
            version = whole_number(values["version"], 1, 2**48)
            texts = (plain(str(values[name]))[:_MAX_TEXT] for name in ("at", "by", "change"))
            changes[version] = LoggedChange(version, *texts)
    return changes


def shorten_changes(folder: Location) -> None:
    """Put the lines together, and keep the newest where there are many; the caller holds the lease."""
    with contextlib.suppress(OSError, StoreError):
        lines, apart = _lines(folder), _lines_apart(folder)
        if apart or len(lines) > 2 * _KEPT_LINES:
            kept = [*lines, *(data.rstrip(b"\n") for data in apart.values())][-_KEPT_LINES:]
            write_file(folder / HISTORY_FILE, b"\n".join([*kept, b""]))
        if not isinstance(folder, Path):
            folder.objects.delete(apart)


def _lines(folder: Location) -> list[bytes]:
    try:
        data = read_bounded(folder / HISTORY_FILE, _MAX_BYTES, advice="delete it")
    except FileNotFoundError:
        return []
    return [line for line in data.split(b"\n") if line]


def _lines_apart(folder: Location) -> dict[str, bytes]:
    """Return the lines that are objects of their own, by name, the oldest first."""
    if isinstance(folder, Path):
        return {}
    listed = (each.name for each in folder.objects.list((folder / _LINES_FOLDER).key))
    names = [name for name in listed if _LINE_NAME.fullmatch(name.rpartition("/")[2])]
    contents = folder.objects.get_ranges([ByteRange(name, 0, _MAX_LINE_BYTES) for name in names])
    return {name: data or b"" for name, data in zip(names, contents, strict=True)}


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())
