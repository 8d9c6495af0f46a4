"""Learning a store's feature projection from a sample of the images that are indexed into it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.errors import ModelFault
from models.extractor import Extractor
from models.images import ImageRejected, decode_image
from models.images.limits import MAX_PIXELS
from pipelines.indexing.reading import read_ahead
from storage.features.projection import fit_projection

__all__ = ["learn_projection"]

SAMPLE_IMAGES = 64


def learn_projection(
    listing: pa.Table,
    extractor: Extractor,
    *,
    channels: int,
    max_pixels: int = MAX_PIXELS,
    options: Mapping[str, str] | None = None,
) -> NDArray[np.float32]:
    """Fit a projection to the local features of images sampled evenly from the whole listing.

    Args:
        listing: Rows of `pipelines.sources.LISTING_SCHEMA`.
        extractor: The model of the store.
        channels: Number of channels to keep, C'.
        max_pixels: Largest image.
        options: Of the buckets that photos lie in.

    Returns:
        (C, C') float32; deterministic for the same images and model.

    Raises:
        InvalidBatch: too few of the images can be used.
    """
    usable = listing.filter(pc.is_null(listing["rejected"]))
    sample = np.unique(np.linspace(0, max(0, len(usable) - 1), min(len(usable), SAMPLE_IMAGES)).astype(int))
    card = extractor.card
    features = [np.empty((0, card.grid_height, card.grid_width, card.feature_dim), np.float32)]
    uris = usable.sort_by("uri")["uri"].take(pa.array(sample)).to_pylist()
    for data in read_ahead(uris, options):
        if not isinstance(data, bytes):
            continue  # the index run itself reports it
        try:
            features.append(extractor.extract([decode_image(data, max_pixels=max_pixels).pixels])[1])
        except (ImageRejected, ModelFault):
            continue  # likewise
    return fit_projection(np.concatenate(features), channels)
