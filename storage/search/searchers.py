"""From descriptors to the nearest rows: FAISS in memory, exact or approximate, or LanceDB on disk."""

from __future__ import annotations

import threading
import warnings
import zlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.errors import CorruptStore
from storage.records import Candidate
from storage.search.approximate import TARGET_RECALL, ApproximateIndex, import_faiss
from storage.table.vectors import VectorTable, descriptor_matrix, good_rows, to_records

__all__ = [
    "RECALL",
    "WHOLE",
    "IndexSearcher",
    "MemorySearcher",
    "Method",
    "Part",
    "Searcher",
    "read_good_rows",
    "readable_pieces",
]

Method = Literal["exact", "ivf", "lance"]

# Share of the exact k nearest that each method finds at least, on the seeded data of
# tests/storage/search/test_searchers.py.
RECALL: dict[Method, float] = {"exact": 1.0, "ivf": TARGET_RECALL, "lance": 0.95}


class Part(NamedTuple):
    """A share of a store's rows: those whose key's CRC-32 leaves `number` when divided by `of`."""

    number: int
    of: int


WHOLE = Part(0, 1)

_TIE_WIDTH = 1e-6
_GPU_MAX_K = 2048  # more neighbours FAISS's kernels do not select
_BLOCK = 32_768


class Searcher(Protocol):
    """Answers from one version of the rows, or from one part of them.

    Attributes:
        degraded: Whether rows had to be left out because they fail their checksum.
        count: How many rows it searches.
    """

    degraded: bool
    count: int

    def search(self, descriptors: npt.NDArray[np.float32], *, k: int) -> list[list[Candidate]]:
        """Return for each query up to k candidates, best first, equal ones by image_id.

        Args:
            descriptors: (B, D) float32, unit L2 norm.
            k: How many candidates.
        """
        ...


def read_good_rows(
    table: VectorTable, columns: Sequence[str] | None = None, *, part: Part = WHOLE
) -> tuple[pa.Table, int]:
    """Read a version, leaving out rows that are damaged or cannot be read.

    Args:
        table: The version.
        columns: What to return of each row; all columns are read for the checksum.
        part: Which rows to return.

    Returns:
        The rows, and how many were left out of the whole version.
    """
    kept, left_out = [], 0
    for piece, unreadable in readable_pieces(table):
        good = good_rows(piece)
        left_out += unreadable + len(piece) - len(good)
        good = _rows_of(good, part)
        kept.append(good if columns is None else good.select(list(columns)))
    return pa.concat_tables(kept), left_out


def _rows_of(rows: pa.Table, part: Part) -> pa.Table:
    if part.of == 1:
        return rows
    keys = rows["image_id"].to_pylist()
    return rows.filter(pa.array([zlib.crc32(key.encode()) % part.of == part.number for key in keys]))


def readable_pieces(table: VectorTable) -> list[tuple[pa.Table, int]]:
    """Return the rows in pieces, each with the number of rows lost beside it."""
    try:
        pieces = list(table.scan())
        return [(piece, 0) for piece in pieces] or [(table.schema.empty_table(), 0)]
    except CorruptStore:
        return _halves(table, 0, table.count())


def _halves(table: VectorTable, start: int, stop: int) -> list[tuple[pa.Table, int]]:
    """Read rows start..stop by halving around what cannot be read."""
    try:
        return [(table.take(range(start, stop)), 0)]
    except CorruptStore:
        if stop - start <= 1:
            return [(table.schema.empty_table(), stop - start)]
        middle = (start + stop) // 2
        return _halves(table, start, middle) + _halves(table, middle, stop)


class MemorySearcher:
    """FAISS over rows held in memory: every row compared (exact), or `ApproximateIndex`.

    Stored descriptors are brought to unit norm in float32, so an inner product is the cosine of what is
    stored. The best are scored once more in float64, so that equal descriptors score equal.

    Attributes:
        degraded: Whether rows had to be left out.
        count: How many rows it searches.
        recall: Share of the exact answers that it finds, as measured on its own rows.
    """

    def __init__(self, rows: pa.Table, *, approximate: bool = False, degraded: bool = False) -> None:
        """Index stored rows.

        Args:
            rows: Rows with every column of `row_schema`, checked.
            approximate: Search through lists of codes instead of comparing with every row.
            degraded: Whether rows had to be left out.

        Raises:
            ImportError: FAISS is not installed.
        """
        self.degraded = degraded
        self.count = len(rows)
        stored = descriptor_matrix(rows)
        # In one piece: taking a hundred rows out of a hundred pieces took 5 ms instead of one.
        self._rows = rows.drop_columns(["descriptor"]).combine_chunks()
        self._index: _FlatIndex | ApproximateIndex
        self._index = ApproximateIndex(stored) if approximate else _FlatIndex(stored)
        self.recall = self._index.recall

    def search(self, descriptors: npt.NDArray[np.float32], *, k: int) -> list[list[Candidate]]:
        """Return for each query up to k candidates, best first, equal ones by image_id.

        Args:
            descriptors: (B, D) float32, unit L2 norm.
            k: How many candidates.
        """
        if not self.count or not len(descriptors):
            return [[] for _ in descriptors]
        found = self._index.search(descriptors, min(k, self.count))
        return [self._best(query, ids[ids >= 0], k) for query, ids in zip(descriptors, found, strict=True)]

    def _best(self, query: npt.NDArray[np.float32], ids: npt.NDArray[np.int64], k: int) -> list[Candidate]:
        return _ranked(self._rows.take(ids), self._index.reconstruct(ids), query, k)


class _FlatIndex:
    """Every row compared in float32; on all GPUs where FAISS knows any, beside a copy in memory."""

    recall = 1.0

    def __init__(self, stored: npt.NDArray[Any]) -> None:
        rows, dimensions = stored.shape
        self._count = rows
        self._index = import_faiss().IndexFlatIP(dimensions)
        for start in range(0, rows, _BLOCK):
            vectors = stored[start : start + _BLOCK].astype(np.float32)
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
            self._index.add(vectors)
        self._on_gpu = _copy_on_gpu(self._index)
        self._gpu_lock = threading.Lock()  # FAISS's indexes on GPUs take one search at a time

    def search(self, queries: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
        """Return (B, k or more) int64: rows by falling similarity, and all that tie with the last."""
        # A few more than asked show whether equal scores go on beyond the last.
        found = min(k + 8, self._count)
        while True:
            scores, ids = self._nearest(queries, found)
            tied = scores[:, k - 1] - scores[:, -1] <= _TIE_WIDTH
            if found == self._count or not tied.any():
                return np.asarray(ids)
            found = min(4 * found, self._count)

    def _nearest(self, queries: npt.NDArray[np.float32], k: int) -> tuple[Any, Any]:
        if self._on_gpu is None or k > _GPU_MAX_K:
            scores, ids = self._index.search(queries, k)
        else:
            with self._gpu_lock:
                scores, ids = self._on_gpu.search(queries, k)
        return scores, ids

    def reconstruct(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return (len(ids), D) float32: rows brought to unit norm."""
        return np.asarray(self._index.reconstruct_batch(ids))


class IndexSearcher:
    """LanceDB's search of one version on disk: through its index if there is one, else by reading every row.

    Attributes:
        degraded: Whether a damaged row was found among the answers so far; such rows are left out.
        count: How many rows it searches.
    """

    def __init__(self, table: VectorTable) -> None:
        """Search this version."""
        self.degraded = False
        self.count = table.count()
        self._table = table

    def search(self, descriptors: npt.NDArray[np.float32], *, k: int) -> list[list[Candidate]]:
        """Return for each query up to k candidates, best first, equal ones by image_id.

        Args:
            descriptors: (B, D) float32, unit L2 norm.
            k: How many candidates.

        Raises:
            CorruptStore: a data file cannot be read.
        """
        answers = []
        for query in descriptors:
            found = self._table.nearest(query, min(k + 8, max(1, self.count)), rows=self.count)
            good = good_rows(found.drop_columns(["_distance"]))
            self.degraded |= len(good) < len(found)
            vectors = descriptor_matrix(good).astype(np.float32)
            answers.append(_ranked(good, vectors, query, k))
        return answers


def _ranked(rows: pa.Table, vectors: np.ndarray, query: npt.NDArray[np.float32], k: int) -> list[Candidate]:
    """Return the k rows of highest cosine, computed in float64, equal ones by image_id."""
    exact, q = vectors.astype(np.float64), query.astype(np.float64)
    norms = np.sqrt((exact * exact).sum(axis=1)) * np.sqrt((q * q).sum())
    scores = np.clip((exact * q).sum(axis=1) / np.maximum(norms, 1e-12), -1.0, 1.0)
    keys = rows["image_id"].to_pylist()
    best = sorted(range(len(keys)), key=lambda i: (-scores[i], keys[i]))[:k]
    records = to_records(rows.take(pa.array(best, pa.int64())))
    return [Candidate(record, float(scores[i])) for record, i in zip(records, best, strict=True)]


def _copy_on_gpu(index: Any) -> Any | None:
    """Return a copy of an index on all GPUs; None where FAISS knows none or it does not fit."""
    faiss = import_faiss()
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        return None
    try:
        return faiss.index_cpu_to_all_gpus(index)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        warnings.warn(f"search stays on the CPU: {reason}", RuntimeWarning, stacklevel=2)
        return None
