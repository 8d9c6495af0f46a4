"""Compares a listing with the store, so that only new and changed images are extracted."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.indexing.columns import METADATA

__all__ = ["mark_known"]


def mark_known(listing: pa.Table, known: pa.Table) -> pa.Table:
    """Join a listing with the rows of the store.

    Args:
        listing: Rows of `pipelines.sources.LISTING_SCHEMA`.
        known: All rows of the store, see `Store.known`.

    Returns:
        The listing sorted by uri, with the columns stored_sha256 and stored_uri (null for new images), and
        amend: whether listed metadata differ from the stored ones, and stored_position: whether the store has
        a position for the image.
    """
    stored = known.select(["image_id", "sha256", *METADATA])
    stored = stored.rename_columns(["image_id"] + [f"stored_{name}" for name in stored.column_names[1:]])
    work = listing.join(stored, "image_id", join_type="left outer").combine_chunks()
    amend = pa.array(np.zeros(work.num_rows, bool))
    for name in METADATA:
        # Null in the listing means unknown; the stored value then came from the photo's EXIF.
        new, old = work[name], work[f"stored_{name}"]
        differs = pc.fill_null(pc.not_equal(new, old), False)
        amend = pc.or_(amend, pc.or_(differs, pc.and_(pc.is_valid(new), pc.is_null(old))))
    amend = pc.and_(amend, pc.is_valid(work["stored_sha256"]))
    placed = pc.or_(pc.is_valid(work["stored_lat"]), pc.is_valid(work["stored_utm_e"]))
    work = work.append_column("amend", amend).append_column("stored_position", placed).sort_by("uri")
    return work.select([*listing.column_names, "stored_sha256", "stored_uri", "amend", "stored_position"])
