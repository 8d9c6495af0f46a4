"""Who changed a store in a folder, when and how: a line of HISTORY for each acknowledged version.

For people only: nothing depends on it, and a line that cannot be written is left out.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from storage.durable import replace_file
from storage.json_values import parse_object, whole_number
from storage.layout import HISTORY_FILE
from storage.objects.files import Location, read_bounded
from storage.text import plain

__all__ = ["LoggedChange", "log_change", "read_changes", "shorten_changes"]

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
    if not isinstance(folder, Path):
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = {"version": version, "at": now, "by": f"{_user()}@{socket.gethostname()}", "change": change}
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    # The version is acknowledged; a full disk must not undo that.
    with (
        contextlib.suppress(OSError),
        os.fdopen(os.open(folder / HISTORY_FILE, flags, 0o666), "ab") as file,
    ):
        file.write((json.dumps(line, sort_keys=True) + "\n").encode())


def read_changes(folder: Location) -> dict[int, LoggedChange]:
    """Return the newest change that made each version; lines that cannot be read are left out.

    Raises:
        CorruptStore: the file is a link, or larger than placeray writes it.
    """
    if not isinstance(folder, Path):
        return {}
    try:
        lines = read_bounded(folder / HISTORY_FILE, _MAX_BYTES, advice="delete it").split(b"\n")
    except FileNotFoundError:
        return {}
    changes = {}
    for line in lines:
        with contextlib.suppress(ValueError, KeyError):
            values = parse_object(line)
            version = whole_number(values["version"], 1, 2**48)
            texts = (plain(str(values[name]))[:_MAX_TEXT] for name in ("at", "by", "change"))
            changes[version] = LoggedChange(version, *texts)
    return changes


def shorten_changes(folder: Location) -> None:
    """Keep the newest lines where there are many; the caller holds the lease."""
    if not isinstance(folder, Path):
        return
    with contextlib.suppress(OSError):
        lines = read_bounded(folder / HISTORY_FILE, _MAX_BYTES, advice="delete it").split(b"\n")
        if len(lines) > 2 * _KEPT_LINES:
            replace_file(folder / HISTORY_FILE, b"\n".join(lines[-_KEPT_LINES:]))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())
