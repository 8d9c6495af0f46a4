"""The columns of a listing."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["LISTING_SCHEMA"]

LISTING_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("lat", pa.float64()),
        ("lon", pa.float64()),
        ("utm_e", pa.float64()),
        ("utm_n", pa.float64()),
        ("utm_zone", pa.string()),
        ("heading_deg", pa.float64()),
        ("captured_at", pa.timestamp("us", tz="UTC")),
        # The folder or listing that names the image: an absolute path without symbolic links.
        ("source", pa.string()),
        # A JSON array of strings.
        ("tags", pa.string()),
        # Values that were dropped, see `pipelines.sources.notes`.
        ("notes", pa.string()),
        ("rejected", pa.string()),
        ("message", pa.string()),
    ]
)
