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
from storage.photos.uris import ObjectUri

__all__ = ["DUPLICATE", "MAX_PATH", "duplicate_message", "list_rows", "mark_duplicates"]

MAX_PATH = 4_096  # characters of a path or an id
SHOWN_PATH = 100
DUPLICATE = "duplicate_id"


def list_rows(
    rows: Iterable[dict[str, Any]],
    root: Path | ObjectUri,
    id_prefix: str,
    *,
    follow_links: bool = False,
    needs_paths: bool = True,
) -> Iterator[dict[str, Any]]:
    """Yield a row of `LISTING_SCHEMA` for each row of a listing.

    Args:
        rows: Values by the names of `pipelines.sources.columns`; of a photo in a container also `photo` and
            `photo_id`, see `pipelines.sources.photo_rows`, and of one that cannot be read `refused`.
        root: Folder that the paths are relative to and must stay inside, or such a prefix of a bucket.
        id_prefix: Prefix of every image id.
        follow_links: Whether links in the root may lead out of it.
        needs_paths: Whether rows without a path are rejected.
    """
    for number, values in enumerate(rows, 1):
        row = _list_row(values, root, follow_links, needs_paths)
        yield row | {"image_id": id_prefix + (row.get("image_id") or f"row {number}")}


def mark_duplicates(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield rows; those whose id an earlier one has are rejected."""
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        image_id = row["image_id"]
        if row.get("rejected") is None and image_id in seen:
            row = row | {"rejected": DUPLICATE, "message": duplicate_message(number, image_id)}
        seen.add(image_id)
        yield row


def duplicate_message(number: int, image_id: str) -> str:
    """Return the message on a row, counted from 1, whose id an earlier row has."""
    return f"row {number} repeats image_id {image_id}"


def _list_row(
    values: dict[str, Any], root: Path | ObjectUri, follow_links: bool, needs_paths: bool
) -> dict[str, Any]:
    if "photo" in values:
        return _photo_row(values)
    uri, image_id = _text(values.get("uri")), _text(values.get("image_id"))
    for name, text in (("path", uri), ("image_id", image_id)):
        if len(text) > MAX_PATH:
            message = f"the {name} has {len(text)} characters, {MAX_PATH} at most"
            return {"uri": uri[:SHOWN_PATH], "image_id": None, "rejected": "bad_value", "message": message}
    row: dict[str, Any] = {"uri": uri, "image_id": image_id or None}
    if not uri and not needs_paths:
        return _with_facts(row, values, "")
    if not uri:
        return row | {"rejected": "bad_value", "message": "uri is empty"}
    located, name = listed_path(uri, root, follow_links=follow_links)
    row |= located
    row["image_id"] = row["image_id"] or name
    return _with_facts(row, values, name)


def _photo_row(values: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a photo in a container."""
    name, image_id = (_text(values.get(key))[:MAX_PATH] for key in ("uri", "image_id"))
    row: dict[str, Any] = {
        "uri": values["photo"],
        "image_id": image_id or clean(values["photo_id"])[:MAX_PATH],
    }
    if "refused" in values:
        reason, message = values["refused"]
        return row | {"rejected": reason, "message": message}
    return _with_facts(row, values, name)


def _with_facts(row: dict[str, Any], values: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a located row with its position, heading, time and tags; `name` may be of the standard form."""
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
