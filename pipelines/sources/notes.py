"""Notes on an image: values that were dropped or read in a way worth checking; the image itself is used.

They travel with its row as text, since a join of Arrow tables takes no nested columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa

from storage.text import plain

__all__ = ["Note", "join_notes", "listing_notes", "split_notes", "with_listing_notes"]

MAX_MESSAGE = 300


class Note(NamedTuple):
    """Why a value was dropped.

    Attributes:
        reason: One word for a class of causes, such as `bad_time`.
        message: The column, the value and what is expected.
    """

    reason: str
    message: str


def join_notes(notes: Iterable[Note], earlier: str | None = None) -> str | None:
    """Return the `notes` column of a row: earlier notes and new ones; None without any."""
    pairs = [*split_notes(earlier), *(Note(reason, plain(message, MAX_MESSAGE)) for reason, message in notes)]
    return json.dumps(pairs, ensure_ascii=False) if pairs else None


def split_notes(column: str | None) -> list[Note]:
    """Return the notes of a row from its `notes` column."""
    return [Note(reason, message) for reason, message in json.loads(column)] if column else []


def with_listing_notes(listing: pa.Table, notes: Iterable[Note]) -> pa.Table:
    """Attach notes on a listing as a whole, which the columns of its file caused."""
    text = join_notes(notes)
    return listing.replace_schema_metadata({"notes": text}) if text else listing


def listing_notes(listing: pa.Table) -> list[Note]:
    """Return the notes on a listing as a whole."""
    metadata = listing.schema.metadata or {}
    return split_notes(metadata.get(b"notes", b"").decode())
