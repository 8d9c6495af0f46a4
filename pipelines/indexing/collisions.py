"""Ids that two collections share, such as those of two cameras' IMG_0001.jpg."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.images import ImageRejected
from models.images.photo_file import read_bytes
from pipelines.indexing.errors import IdsTaken
from pipelines.indexing.known import UNSEEN

__all__ = ["require_same_photos"]

# Photos that are read beforehand, evenly over all that share an id; decoding compares the others.
SAMPLE = 500


def require_same_photos(work: pa.Table) -> None:
    """Check that what a source, new to the store, has under stored ids are the stored photos.

    Args:
        work: As `mark_known` returns it.

    Raises:
        IdsTaken: one of them is another photo.
    """
    foreign = pc.and_(pc.fill_null(pc.equal(work["owner"], UNSEEN), False), pc.is_null(work["rejected"]))
    shared = work.filter(foreign)
    at = np.unique(np.linspace(0, max(0, shared.num_rows - 1), min(shared.num_rows, SAMPLE)).astype(int))
    for row in shared.take(pa.array(at)).to_pylist():
        try:
            sha256 = hashlib.sha256(read_bytes(row["uri"])).hexdigest()
        except ImageRejected:
            continue  # the run itself reports it
        if sha256 != row["stored_sha256"]:
            raise IdsTaken(
                f"{row['uri']} has the id of another photo, {row['stored_uri']}, and so may "
                f"{shared.num_rows} photos of {row['source']}: to keep both collections give this one an "
                f"--id-prefix; if it is that library at a new place, add --moved-from {row['stored_source']}"
            )
