"""Seeded queries, and exact search in numpy to compare with."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from storage.table.schema import descriptor_matrix

SEARCH_DIM = 32


def exact_search(rows: pa.Table, queries: np.ndarray, k: int) -> list[list[tuple[str, float]]]:
    """Return per query the k nearest keys with their cosine similarity, ties by key."""
    keys = rows["image_id"].to_pylist()
    stored = descriptor_matrix(rows).astype(np.float64)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    answers = []
    for query in queries.astype(np.float64):
        scores = (stored * (query / np.linalg.norm(query))).sum(axis=1)
        order = sorted(range(len(keys)), key=lambda i: (-round(scores[i], 12), keys[i]))
        answers.append([(keys[i], float(scores[i])) for i in order[:k]])
    return answers


def seeded_queries(seed: int, count: int, dim: int = SEARCH_DIM) -> np.ndarray:
    queries = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return np.asarray(queries / np.linalg.norm(queries, axis=1, keepdims=True))
