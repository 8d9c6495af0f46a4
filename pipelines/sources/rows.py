"""Rows of a listing, each checked by itself: a bad value is dropped with a note, a bad row rejected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipelines.sources.facts import read_captured_at, read_heading_deg, read_tags
from pipelines.sources.notes import Note, join_notes
from pipelines.sources.numbers import is_missing
from pipelines.sources.paths import clean, listed_path
from pipelines.sources.positions import ImpossiblePosition, read_position
from pipelines.sources.standard_name import read_standard_name

__all__ = ["MAX_PATH", "list_rows"]

MAX_PATH = 4_096  # characters of a path or an id
SHOWN_PATH = 100


def list_rows(
    rows: Iterable[dict[str, Any]], root: Path, id_prefix: str, *, follow_links: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield a row of `LISTING_SCHEMA` for each row of a listing.

    Args:
        rows: Values by the names of `pipelines.sources.columns`.
        root: Folder that the paths are relative to and must stay inside.
        id_prefix: Prefix of every image id.
        follow_links: Whether links in the root may lead out of it.
    """
    seen: set[str] = set()
    for number, values in enumerate(rows, 1):
        row = _list_row(values, root, follow_links)
        image_id = id_prefix + (row.get("image_id") or f"row {number}")
        if "rejected" not in row and image_id in seen:
            row |= {"rejected": "duplicate_id", "message": f"row {number} repeats image_id {image_id}"}
        seen.add(image_id)
        yield row | {"image_id": image_id}


def _list_row(values: dict[str, Any], root: Path, follow_links: bool) -> dict[str, Any]:
    uri, image_id = _text(values.get("uri")), _text(values.get("image_id"))
    for name, text in (("path", uri), ("image_id", image_id)):
        if len(text) > MAX_PATH:
            message = f"the {name} has {len(text)} characters, {MAX_PATH} at most"
            return {"uri": uri[:SHOWN_PATH], "image_id": None, "rejected": "bad_value", "message": message}
    row: dict[str, Any] = {"uri": uri, "image_id": image_id or None}
    if not uri:
        return row | {"rejected": "bad_value", "message": "uri is empty"}
    located, name = listed_path(uri, root, follow_links=follow_links)
    row |= located
    row["image_id"] = row["image_id"] or name
    if "problem" in values:
        row.setdefault("rejected", "bad_value")
        row.setdefault("message", f"the row {values['problem']}")
        return row
    notes: list[Note] = []
    try:
        row |= read_position(values, notes)
    except ImpossiblePosition as error:
        row.setdefault("rejected", "bad_value")
        row.setdefault("message", f"UTM coordinates out of range: {error}")
    row |= {
        "heading_deg": read_heading_deg(values.get("heading_deg"), notes),
        "captured_at": read_captured_at(values, notes),
        "tags": read_tags(values.get("tags")),
    }
    if "utm_e" not in row and "lat" not in row:
        pose = read_standard_name(Path(row["uri"]).name, notes) or read_standard_name(Path(name).name, notes)
        row = pose | {name: value for name, value in row.items() if value is not None or name not in pose}
    return row | {"notes": join_notes(notes)}


def _text(value: Any) -> str:
    """Return a path or an id as text; only empty values are missing, since `NA` may be a name."""
    return "" if not isinstance(value, str) and is_missing(value) else clean(str(value)).strip()
