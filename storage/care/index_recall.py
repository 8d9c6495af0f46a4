"""Recall of the index on disk, measured with the store's own rows as queries."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from storage.table.open_table import Table
from storage.table.schema import descriptor_matrix

__all__ = ["INDEX_RECALL", "index_recall"]

INDEX_RECALL = 0.99
_QUERIES, _K = 200, 100
_SAME = 1e-4  # half precision: rows that are as similar as the hundredth are as good

Floats = npt.NDArray[np.float32]


def index_recall(table: Table) -> float:
    """Return the share of the exact 100 nearest that a search through the index finds, over 200 rows.

    Reads every descriptor once.

    Args:
        table: A version with an index.

    Raises:
        CorruptStore: a data file cannot be read.
    """
    rows = table.count()
    if not rows:
        return 1.0
    sample = np.unique(np.linspace(0, rows - 1, min(rows, _QUERIES)).astype(np.int64))
    queries = _unit(descriptor_matrix(table.take(sample.tolist(), ["descriptor"])))
    k = min(_K, rows)
    last = _similarity_of_the_last(table, queries, k)
    found = [
        _unit(descriptor_matrix(table.nearest(query, k))) @ query >= limit - _SAME
        for query, limit in zip(queries, last, strict=True)
    ]
    return float(np.mean([min(k, int(each.sum())) / k for each in found]))


def _similarity_of_the_last(table: Table, queries: Floats, k: int) -> Floats:
    """Return (B,) float32: how similar the k-th nearest row is to each query, by comparing all."""
    best = np.full((len(queries), k), -np.inf, np.float32)
    for batch in table.scan(["descriptor"]):
        both = np.concatenate([best, queries @ _unit(descriptor_matrix(batch)).T], axis=1)
        best = np.partition(both, both.shape[1] - k, axis=1)[:, -k:]
    return np.asarray(best.min(axis=1), np.float32)


def _unit(stored: npt.NDArray[np.generic]) -> Floats:
    vectors = stored.astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, np.float32(1e-12)), np.float32)
