"""A comparison as lines of text and as one HTML page that needs no network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.images import ImageRejected
from models.images.photo_file import read_indexed
from pipelines.evaluation.comparison import Comparison, interval_words
from pipelines.evaluation.describe import FEW_PLACES, few_places
from pipelines.html_report import Thumbnail, make_thumbnail, render
from storage.durable import explain_write_errors, replace_file

__all__ = ["comparison_lines", "write_comparison"]

_SHOWN, _THUMBNAIL_PX = 12, 280
_ORDER_NAMES = {"global": "global descriptor", "final": "final order"}
_SCALE_POINTS = 5.0  # least half-width of the chart


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of the table for a terminal."""
    yield f"first:  {_described(comparison.first)}"
    yield f"second: {_described(comparison.second)}"
    yield f"{comparison.queries} queries of {comparison.places} places; p is that of a sign test over places"
    yield (
        f"{'':<24}{'first':>8}{'second':>8}{'difference':>12}  {'95 % interval':<18}"
        f"{'won':>5}{'lost':>6}{'p':>10}"
    )
    for order, depths in comparison.differences.items():
        for k, at in depths.items():
            yield (
                f"{_ORDER_NAMES[order] + ' R@' + k:<24}{at['first']:>8.1f}{at['second']:>8.1f}"
                f"{at['difference']:>+12.1f}  {interval_words(at['interval']):<18}"
                f"{at['won']:>5}{at['lost']:>6}{at['p_value']:>10.3g}"
            )
    if comparison.places < FEW_PLACES:
        yield few_places(comparison.places)
    for name, was, now in _differences(comparison):
        yield f"differs: {name}: {_short(was)} and {_short(now)}"
    for name, value in _shared(comparison):
        yield f"both: {name}: {_short(value)}"
    for name, rows in (("won", comparison.won), ("lost", comparison.lost)):
        for row in rows[:_SHOWN]:
            yield f"{name}: {row['query']}"
        if (further := _count(comparison, name) - len(rows[:_SHOWN])) > 0:
            yield f"{name}: {further} more"


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write comparison.html and comparison.json, each whole or not at all.

    Raises:
        OutOfSpace: the disk is full.
        NotWritable: the folder cannot be written.
    """
    widest = max(
        _SCALE_POINTS,
        *(
            abs(value)
            for depths in comparison.differences.values()
            for at in depths.values()
            for value in (at["difference"], *at["interval"])
            if value is not None
        ),
    )
    page = render(
        "comparison.html",
        comparison=comparison,
        order_names=_ORDER_NAMES,
        interval_words=interval_words,
        described=_described,
        short=_short,
        warning=few_places(comparison.places) if comparison.places < FEW_PLACES else "",
        widest=widest,
        examples=[
            (title, [_example(row) for row in rows[:_SHOWN]], _count(comparison, title.lower()))
            for title, rows in (("Won", comparison.won), ("Lost", comparison.lost))
        ],
        differences=_differences(comparison),
        shared=_shared(comparison),
    )
    with explain_write_errors(folder, len(page)):
        folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "comparison.html", page)
    replace_file(folder / "comparison.json", (json.dumps(dict(comparison), indent=2) + "\n").encode())


def _count(comparison: Comparison, name: str) -> int:
    """Return how many photos were won or lost at the first answer, of which the lists may hold a part."""
    return int(comparison.differences["final"]["1"][name])


def _differences(comparison: Comparison) -> list[tuple[str, Any, Any]]:
    """Return name and both values of each condition that differs; of versions each package that does."""
    rows = []
    for name, (was, now) in comparison.conditions.items():
        if isinstance(was, dict) and isinstance(now, dict):
            packages = [each for each in {**was, **now} if was.get(each) != now.get(each)]
            rows += [(f"{name}, {each}", was.get(each), now.get(each)) for each in packages]
        else:
            rows.append((name, was, now))
    return rows


def _shared(comparison: Comparison) -> list[tuple[str, Any]]:
    """Return name and value of each condition that both have; of versions each package of the same one."""
    rows: list[tuple[str, Any]] = []
    for name, value in comparison.shared.items():
        if isinstance(value, dict):
            rows += [(f"{name}, {each}", number) for each, number in value.items()]
        else:
            rows.append((name, value))
    for name, (was, now) in comparison.conditions.items():
        if isinstance(was, dict) and isinstance(now, dict):
            rows += [(f"{name}, {each}", was[each]) for each in was if now.get(each, ...) == was[each]]
    return rows


def _described(side: Any) -> str:
    return f"{side['dataset']}, {side['model']}, store version {side['store_version']}; {side['protocol']}"


def _short(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    text = json.dumps(value, default=str) if isinstance(value, dict | list) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _example(row: Any) -> dict[str, Any]:
    """Return a query and both first answers with their pictures."""
    return {
        "name": Path(row["query"]).name,
        "query": _thumbnail(row["query"], row["sha256"]),
        "answers": [
            (name, row[name], _thumbnail(row[name]["uri"], row[name]["sha256"]))
            for name in ("first", "second")
        ],
    }


def _thumbnail(uri: str | None, sha256: str | None) -> Thumbnail | None:
    """Return the picture of a photo; None where the file is gone or is another one."""
    if uri is None or sha256 is None:
        return None
    try:
        return make_thumbnail(read_indexed(uri, sha256), max_side_px=_THUMBNAIL_PX)
    except ImageRejected:
        return None
