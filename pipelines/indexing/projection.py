"""Learning a store's feature projection from a sample of the images that are indexed into it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.errors import ModelFault
from models.extractor import Extractor
from models.images import ImageRejected, decode_image
from models.images.limits import MAX_PIXELS
from models.images.photo_file import read_bytes
from storage.features.projection import fit_projection

__all__ = ["learn_projection"]

SAMPLE_IMAGES = 64


def learn_projection(
    listing: pa.Table, extractor: Extractor, *, channels: int, max_pixels: int = MAX_PIXELS
) -> NDArray[np.float32]:
    """Fit a projection to the local features of images sampled evenly from the whole listing.

    Args:
        listing: Rows of `pipelines.sources.LISTING_SCHEMA`.
        extractor: The model of the store.
        channels: Number of channels to keep, C'.
        max_pixels: Largest image.

    Returns:
        (C, C') float32; deterministic for the same images and model.

    Raises:
        InvalidBatch: too few of the images can be used.
    """
    usable = listing.filter(pc.is_null(listing["rejected"]))
    sample = np.unique(np.linspace(0, max(0, len(usable) - 1), min(len(usable), SAMPLE_IMAGES)).astype(int))
    card = extractor.card
    features = [np.empty((0, card.grid_height, card.grid_width, card.feature_dim), np.float32)]
    for uri in usable.sort_by("uri")["uri"].take(pa.array(sample)).to_pylist():
        try:
            features.append(
                extractor.extract([decode_image(read_bytes(uri), max_pixels=max_pixels).pixels])[1]
            )
        except (ImageRejected, ModelFault):
            continue  # the index run itself reports it
    return fit_projection(np.concatenate(features), channels)
