"""Columns of the rows that travel between the stages of an index run."""

from __future__ import annotations

import pyarrow as pa

from pipelines.sources import LISTING_SCHEMA
from storage.card import Card
from storage.table.schema import row_schema

__all__ = ["DECODED_SCHEMA", "METADATA", "amended_columns"]

METADATA = ("uri", "lat", "lon", "utm_e", "utm_n", "utm_zone", "heading_deg", "captured_at")
DECODED_SCHEMA = pa.schema(
    [
        *LISTING_SCHEMA,
        ("number", pa.int64()),
        ("amend", pa.bool_()),
        ("unchanged", pa.bool_()),
        ("stored_position", pa.bool_()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("pixels", pa.binary()),
        ("failure", pa.string()),
    ]
)


def amended_columns(card: Card) -> list[str]:
    """Return the columns that are written anew where only they changed, in a store with this card."""
    optional = [
        name for name in ("source", "tags") if name in row_schema(card, optional=("source", "tags")).names
    ]
    return ["image_id", *METADATA, *optional]
