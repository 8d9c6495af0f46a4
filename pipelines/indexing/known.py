"""Compares a listing with the store, so that only new and changed images are extracted."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.indexing.columns import METADATA

__all__ = ["OTHER", "THIS", "UNSEEN", "mark_known"]

# Whose photo the store has under an id: this source's, or another's, while it has rows of this one or none.
THIS, OTHER, UNSEEN = "this", "other", "unseen"
ADDED = ("stored_sha256", "stored_uri", "stored_source", "amend", "stored_position", "owner")


def mark_known(
    listing: pa.Table,
    known: pa.Table,
    *,
    own: Collection[str] = (),
    tags: bool = False,
    seen: bool = False,
) -> pa.Table:
    """Join a listing with the rows of the store.

    Args:
        listing: Rows of `pipelines.sources.LISTING_SCHEMA`.
        known: All rows of the store, see `Store.metadata`.
        own: Ids of the rows that the store has of this source.
        tags: Whether the store keeps tags.
        seen: Whether the store has rows of this source beside `own`.

    Returns:
        The listing sorted by uri, with the columns stored_sha256, stored_uri and stored_source (null for new
        images), amend: whether listed metadata differ from the stored ones, stored_position: whether the
        store has a position for the image, and owner: `THIS`, `OTHER`, `UNSEEN`, or null for new images.
    """
    compared = (*METADATA, "tags") if tags else METADATA
    stored = known.select(["image_id", "sha256", "source", *compared])
    stored = stored.rename_columns(["image_id"] + [f"stored_{name}" for name in stored.column_names[1:]])
    work = listing.join(stored, "image_id", join_type="left outer").combine_chunks()
    amend = pa.array(np.zeros(work.num_rows, bool))
    for name in compared:
        # Null in the listing means unknown; the stored value then came from the photo's EXIF.
        new, old = work[name], work[f"stored_{name}"]
        differs = pc.fill_null(pc.not_equal(new, old), False)
        amend = pc.or_(amend, pc.or_(differs, pc.and_(pc.is_valid(new), pc.is_null(old))))
    amend = pc.and_(amend, pc.is_valid(work["stored_sha256"]))
    placed = pc.or_(pc.is_valid(work["stored_lat"]), pc.is_valid(work["stored_utm_e"]))
    work = work.append_column("amend", amend).append_column("stored_position", placed)
    work = work.append_column("owner", _owner(work, own, seen)).sort_by("uri")
    return work.select([*listing.column_names, *ADDED])


def _owner(work: pa.Table, own: Collection[str], seen: bool) -> pa.Array:
    same_file = pc.fill_null(pc.equal(work["stored_uri"], work["uri"]), False)
    this = pc.or_(same_file, pc.is_in(work["image_id"], pa.array(own, pa.string())))
    seen = seen or len(own) > 0 or pc.any(same_file).as_py()
    owner = pc.if_else(this, THIS, OTHER if seen else UNSEEN)
    return pc.if_else(pc.is_valid(work["stored_sha256"]), owner, pa.scalar(None, pa.string()))
