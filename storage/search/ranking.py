"""The final order of the candidates: cosine similarity in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.records import Candidate
from storage.table.schema import to_records

__all__ = ["rank_rows"]


def rank_rows(rows: pa.Table, vectors: np.ndarray, query: npt.NDArray[np.float32], k: int) -> list[Candidate]:
    """Return the k rows of highest cosine similarity, computed in float64, ties by image_id.

    Args:
        rows: N stored rows.
        vectors: (N, D) their descriptors.
        query: (D,) float32.
        k: Number of candidates.
    """
    exact, q = vectors.astype(np.float64), query.astype(np.float64)
    norms = np.sqrt((exact * exact).sum(axis=1)) * np.sqrt((q * q).sum())
    scores = np.clip((exact * q).sum(axis=1) / np.maximum(norms, 1e-12), -1.0, 1.0)
    keys = rows["image_id"].to_pylist()
    best = sorted(range(len(keys)), key=lambda i: (-scores[i], keys[i]))[:k]
    if len(best) < len(keys):
        rows, scores, best = rows.take(pa.array(best, pa.int64())), scores[best], list(range(len(best)))
    records = to_records(rows)
    return [Candidate(records[i], float(scores[i])) for i in best]
