"""Columns of the rows that travel between the stages of an index run."""

from __future__ import annotations

import pyarrow as pa

from pipelines.sources import LISTING_SCHEMA

__all__ = ["DECODED_SCHEMA", "METADATA"]

METADATA = ("uri", "lat", "lon", "utm_e", "utm_n", "utm_zone", "heading_deg", "captured_at")
DECODED_SCHEMA = pa.schema(
    [
        *LISTING_SCHEMA,
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
