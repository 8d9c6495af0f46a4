"""Learning a store's feature projection from a sample of the images that go into it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.extractor import Extractor, ModelFault
from models.images.decoder import ImageRejected, decode_image
from models.images.photo_file import read_bytes
from storage.features.projection import fit_projection

__all__ = ["learn_projection"]

SAMPLE_IMAGES = 64


def learn_projection(listing: pa.Table, extractor: Extractor, *, channels: int) -> NDArray[np.float32]:
    """Extract some images, evenly out of the whole listing, and fit a projection to their local features.

    Args:
        listing: Rows of `pipelines.sources`.
        extractor: The model of the store.
        channels: How many channels to keep.

    Returns:
        (C, C') float32; the same for the same images and model.

    Raises:
        InvalidBatch: too few of the images can be used.
    """
    usable = listing.filter(pc.is_null(listing["rejected"]))
    at = np.unique(np.linspace(0, max(0, len(usable) - 1), min(len(usable), SAMPLE_IMAGES)).astype(int))
    card = extractor.card
    found = [np.empty((0, card.grid_height, card.grid_width, card.feature_dim), np.float32)]
    for uri in usable.sort_by("uri")["uri"].take(pa.array(at)).to_pylist():
        try:
            found.append(extractor.extract([decode_image(read_bytes(uri)).pixels])[1])
        except (ImageRejected, ModelFault):
            continue  # the index run names it
    return fit_projection(np.concatenate(found), channels)
