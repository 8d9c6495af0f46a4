"""Ids that two collections share, such as those of two cameras' IMG_0001.jpg."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.indexing.errors import IdsTaken
from pipelines.indexing.known import UNSEEN
from pipelines.indexing.reading import read_ahead

__all__ = ["require_same_photos"]

# Photos that are read beforehand, evenly over all that share an id; decoding compares the others.
SAMPLE = 500


def require_same_photos(work: pa.Table, options: Mapping[str, str] | None = None) -> None:
    """Check that what a source, new to the store, has under stored ids are the stored photos.

    Args:
        work: As `mark_known` returns it.
        options: Of the buckets that photos lie in.

    Raises:
        IdsTaken: one of them is another photo.
    """
    foreign = pc.and_(pc.fill_null(pc.equal(work["owner"], UNSEEN), False), pc.is_null(work["rejected"]))
    shared = work.filter(foreign)
    at = np.unique(np.linspace(0, max(0, shared.num_rows - 1), min(shared.num_rows, SAMPLE)).astype(int))
    sample = shared.take(pa.array(at)).to_pylist()
    for row, data in zip(sample, read_ahead([row["uri"] for row in sample], options), strict=True):
        if not isinstance(data, bytes):
            continue  # the run itself reports it
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 != row["stored_sha256"]:
            raise IdsTaken(
                f"{row['uri']} has the id of another photo, {row['stored_uri']}, and so may "
                f"{shared.num_rows} photos of {row['source']}: to keep both collections give this one an "
                f"--id-prefix; if it is that library at a new place, add --moved-from {row['stored_source']}"
            )
