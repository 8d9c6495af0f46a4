"""Where a result comes from: commit, machine, day and the digest of the code that was measured."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from benchmarks.catalogue import PARTS, Part, parts_touched
from benchmarks.machine import describe_machine
from benchmarks.sources import ROOT, digest, source_files

__all__ = [
    "State",
    "Status",
    "changed_files",
    "is_this_machine",
    "shown",
    "stamp",
    "stamped",
    "status",
    "statuses",
]

RESULTS = Path(__file__).parent / "results"
_STARTED = time.monotonic()
_PLACES = ("--out", "--scratch", "--work")


class State(StrEnum):
    """What the code says about a result."""

    CURRENT = "of the present code"
    OUTDATED = "older than the code"
    MISSING = "not measured yet"


@dataclass(frozen=True)
class Status:
    """A part, its state, and what is known of its measurement (`record`, empty if nothing is)."""

    part: Part
    state: State
    record: dict[str, Any]

    def __str__(self) -> str:
        where = f"{self.part.name} ({self.part.file}): {self.state}"
        if self.state is State.MISSING:
            return where
        day, commit = self.record.get("measured", "?"), str(self.record.get("commit") or "?")[:7]
        more = "" if self.record.get("sources_sha256") else ", without a digest of its code"
        return f"{where}, measured on {day} at {commit}{more}"


def stamped(
    values: dict[str, Any], former: dict[str, Any], command: list[str], finished: bool
) -> dict[str, Any]:
    """Return results with the provenance of this run beside that of the parts that it did not touch.

    Args:
        values: the results.
        former: `provenance` of the file as it was.
        command: module and arguments of this process, such as `["benchmarks.bench_pipeline", "feed"]`.
        finished: whether all of the part is measured.
    """
    records = dict(former)
    module, arguments = command[0], _measuring(command[1:])
    known = any(part.is_run_by(arguments) for part in PARTS if part.module == module)
    for part in parts_touched(module, arguments):
        if part.is_run_by(arguments):
            records[part.name] = stamp(part, command, finished)
        elif not known:
            records[part.name] = stamp(part, command, whole=False)
    return {**values, "provenance": records} if records else values


def stamp(part: Part, command: list[str], whole: bool) -> dict[str, Any]:
    """Return what is recorded about a run; only a whole one with the part's own arguments has a digest."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--", *_paths(part))),
        "measured": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "took_s": round(time.monotonic() - _STARTED, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "machine": describe_machine(),
        "command": " ".join(["python -m", *shown(command)]),
        "sources_sha256": digest(part) if whole else None,
    }


def status(part: Part, folder: Path = RESULTS) -> Status:
    """Return whether a part's result is of the code as it is."""
    path = folder / part.file
    values: Any = json.loads(path.read_text()) if path.exists() else None
    record = (values or {}).get("provenance", {}).get(part.name, {})
    for key in part.key:
        values = values.get(key) if isinstance(values, dict) else None
    if not values or isinstance(values, str):
        return Status(part, State.MISSING, {})
    same = record.get("sources_sha256") == digest(part)
    return Status(part, State.CURRENT if same else State.OUTDATED, record)


def statuses(folder: Path = RESULTS) -> list[Status]:
    return [status(part, folder) for part in PARTS]


def changed_files(one: Status) -> list[str]:
    """Return the files of a result that differ from its commit, as far as Git knows."""
    commit = one.record.get("commit")
    names = commit and _git("diff", "--name-only", str(commit), "--", *_paths(one.part))
    return names.splitlines() if names else []


def is_this_machine(one: Status) -> bool:
    """Return whether a result was measured on a machine like this one: its processor and cores."""
    here, there = describe_machine(), one.record.get("machine")
    return isinstance(there, dict) and all(here[key] == there.get(key) for key in ("cpu", "cores"))


def _paths(part: Part) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in source_files(part)]


def shown(arguments: list[str]) -> list[str]:
    """Return arguments as they are recorded: folders and files of this machine are called DIR."""
    return ["DIR" if Path(argument).is_absolute() else argument for argument in arguments]


def _measuring(arguments: list[str]) -> list[str]:
    """Return arguments without those that only say where files are written."""
    kept = list(arguments)
    for flag in _PLACES:
        if flag in kept:
            at = kept.index(flag)
            del kept[at : at + 2]
    return kept


def _git(*arguments: str) -> str | None:
    """Return what Git prints, or None where there is no Git or no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
