"""Tags that `index --tag` gives to the images of a listing."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.tagging.change import TagChange

__all__ = ["tagged"]


def tagged(listing: pa.Table, known: pa.Table, tags: tuple[str, ...]) -> pa.Table:
    """Return a listing whose images have further tags.

    An image keeps the tags that the listing names; where it names none, those that the store has of it.

    Args:
        listing: Rows of `pipelines.sources.LISTING_SCHEMA`.
        known: All rows of the store, see `Store.metadata`.
        tags: To be added to every image.

    Raises:
        BadTag: a tag cannot be used, or an image would have too many.
    """
    if not tags:
        return listing
    stored = pc.take(known["tags"], pc.index_in(listing["image_id"], known["image_id"].combine_chunks()))
    texts = pc.coalesce(listing["tags"], stored.cast(pa.string()))
    at = listing.schema.get_field_index("tags")
    return listing.set_column(at, listing.schema.field(at), TagChange(add=tags).column(texts))
