"""Rows of a listing that repeat an id."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.indexing.failures import reject_rows
from pipelines.sources import DUPLICATE, duplicate_message

__all__ = ["mark_repeated"]


def mark_repeated(rows: pa.Table) -> pa.Table:
    """Return rows of which those are rejected that have the id of an earlier one.

    Args:
        rows: Of a listing, with image_id, rejected and number, from 0; in ascending order of number, and with
            all rows of each id.
    """
    if not rows.num_rows:
        return rows
    codes = rows["image_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    _, first, place = np.unique(codes, return_index=True, return_inverse=True)
    usable = pc.is_null(rows["rejected"]).to_numpy(zero_copy_only=False)
    again = np.flatnonzero((first[place] < np.arange(len(codes))) & usable)
    repeated = rows.take(pa.array(again)).select(["number", "image_id"]).to_pylist()
    messages = {
        int(at): duplicate_message(row["number"] + 1, row["image_id"])
        for at, row in zip(again, repeated, strict=True)
    }
    return reject_rows(rows, messages, reason=DUPLICATE)
