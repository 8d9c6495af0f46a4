"""Marks on the pages Benchmarks and Places that say of which code their figures are.

`<!-- measured: index, pipeline feed -->` becomes a note about these benchmarks, `<!-- measured: all -->` a
table of all of them.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.catalogue import PARTS, part_named
from benchmarks.provenance import RESULTS, State, Status, status

__all__ = ["marked", "named_in"]

_MARK = re.compile(r"^<!-- measured: ([^\n]+) -->$", re.MULTILINE)


def named_in(text: str) -> set[str]:
    """Return the names of the benchmarks that a page has marks for, without `all`."""
    return {name.strip() for mark in _MARK.finditer(text) for name in mark[1].split(",")} - {"all"}


def marked(text: str, folder: Path = RESULTS) -> str:
    """Return a page with its marks filled in; KeyError for a benchmark that does not exist."""
    return _MARK.sub(lambda mark: _filled(mark[1], folder), text)


def _filled(names: str, folder: Path) -> str:
    if names == "all":
        return _table([status(part, folder) for part in PARTS])
    found = [status(part_named(name.strip()), folder) for name in names.split(",")]
    old = [one for one in found if one.state is not State.CURRENT]
    if not old:
        return f"*Of the present code: {'; '.join(map(_origin, found))}.*"
    title = "Not measured yet" if all(one.state is State.MISSING for one in old) else "Older than the code"
    notes = [f"    - {one.part.name}: {one.state}{_measured(one)}" for one in found]
    return "\n".join([f'!!! warning "{title}"', "", *notes])


def _measured(one: Status) -> str:
    return "" if one.state is State.MISSING else f", {_origin(one)}"


def _origin(one: Status) -> str:
    record = one.record
    words = [f"measured on {record['measured']}" if "measured" in record else "measured on an unknown day"]
    if record.get("commit"):
        words.append(f"at `{str(record['commit'])[:7]}`")
    if machine := _machine(one):
        words.append(f"on {machine}")
    return " ".join(words)


def _machine(one: Status) -> str:
    machine = one.record.get("machine")
    if isinstance(machine, dict):
        cores = machine.get("cores") or machine.get("cpus")
        machine = ", ".join(filter(None, [machine.get("cpu"), f"{cores} cores" if cores else ""]))
    return str(machine or "")


def _table(found: list[Status]) -> str:
    lines = ["| benchmark | results | measured | commit | machine | state |", "|---|---|---|---|---|---|"]
    for one in found:
        commit = f"`{str(one.record['commit'])[:7]}`" if one.record.get("commit") else ""
        state = str(one.state) if one.state is State.CURRENT else f"**{one.state}**"
        cells = [
            one.part.name,
            f"`{one.part.file}`",
            one.record.get("measured", ""),
            commit,
            _machine(one),
            state,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
