"""Search by binary codes: the nearest by Hamming distance, ordered by their float descriptors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.card import Card
from storage.errors import InvalidBatch
from storage.records import Candidate
from storage.search.code_index import CodeIndex
from storage.search.memory_searcher import compact_rows
from storage.search.partition import WHOLE_INDEX, Partition, rows_in
from storage.search.ranking import rank_rows
from storage.search.row_filter import RowFilter
from storage.search.rows_left import rows_left, scanned_rows_left
from storage.table.checksums import intact_rows
from storage.table.open_table import Table
from storage.table.schema import code_matrix, descriptor_matrix

__all__ = ["RERANKED", "CodeSearcher", "DiskCodeSearcher"]

RERANKED = 100  # candidates at least that are ordered by their descriptors


class CodeSearcher:
    """Searches codes in memory, with the records and descriptors in memory too.

    Attributes:
        degraded: Whether rows had to be left out.
        count: How many rows it searches.
        recall: Recall of its codes against exact Hamming search, measured on its own rows.
    """

    def __init__(self, rows: pa.Table, card: Card, *, degraded: bool = False) -> None:
        """Index stored rows.

        Args:
            rows: Intact rows with every column of the card's format.
            card: Their card, with codes.
            degraded: Whether rows had to be left out.
        """
        coded = rows.filter(rows["code"].is_valid())
        self.degraded = degraded or len(coded) < len(rows)
        self.count = len(coded)
        self._vectors = np.array(descriptor_matrix(coded))
        assert card.code_bits is not None
        self._index = CodeIndex([code_matrix(coded)], len(coded), bits=card.code_bits)
        self._rows = compact_rows(coded)
        self.recall = self._index.recall

    def search(
        self,
        descriptors: npt.NDArray[np.float32],
        *,
        k: int,
        codes: npt.NDArray[np.uint8] | None = None,
        within: RowFilter | None = None,
    ) -> list[list[Candidate]]:
        """Return up to k candidates per query, best first by similarity, ties by image_id.

        The nearest by Hamming distance, at least 100, are ordered by the cosine similarity of their
        descriptors; the Hamming distance is then dropped.

        Args:
            descriptors: (B, D) float32, unit L2 norm.
            k: Number of candidates per query.
            codes: (B, code_bits / 8) uint8.
            within: Which rows may be found; default: all.
        """
        allowed = None if within is None else rows_left(within, self._rows)
        nearest = self._index.search(_given(codes, len(descriptors)), max(k, RERANKED), allowed)
        return [
            self._ranked(query, ids[ids >= 0], k) for query, ids in zip(descriptors, nearest, strict=True)
        ]

    def considered(self, within: RowFilter | None) -> int:
        """Return how many rows a filter leaves; all of them without one."""
        return self.count if within is None else int(rows_left(within, self._rows).sum())

    def _ranked(self, query: npt.NDArray[np.float32], ids: npt.NDArray[np.int64], k: int) -> list[Candidate]:
        return rank_rows(self._rows.take(ids), self._vectors[ids].astype(np.float32), query, k)


class DiskCodeSearcher:
    """Searches codes in memory; records and descriptors of the nearest are read from the table on disk.

    Attributes:
        degraded: Whether a damaged row was among the results so far; such rows are left out.
        count: How many rows it searches.
        recall: As of `CodeSearcher`.
    """

    def __init__(self, table: Table, card: Card, partition: Partition = WHOLE_INDEX) -> None:
        """Read the codes of a version.

        Args:
            table: The version.
            card: Its card, with codes.
            partition: Which of its rows.
        """
        self._table, self._card = table, card
        offsets: list[npt.NDArray[np.int64]] = []
        blocks = list(self._coded(partition, offsets))
        self._offsets = np.concatenate(offsets) if offsets else np.empty(0, np.int64)
        self.count = len(self._offsets)
        self.degraded = partition.total == 1 and self.count < table.count()
        assert card.code_bits is not None
        self._index = CodeIndex(blocks, self.count, bits=card.code_bits)
        self.recall = self._index.recall

    def search(
        self,
        descriptors: npt.NDArray[np.float32],
        *,
        k: int,
        codes: npt.NDArray[np.uint8] | None = None,
        within: RowFilter | None = None,
    ) -> list[list[Candidate]]:
        """Return the candidates; arguments and order as of `CodeSearcher.search`.

        Raises:
            CorruptStore: a data file cannot be read.
        """
        allowed = None if within is None else self._allowed(within)
        nearest = self._index.search(_given(codes, len(descriptors)), max(k, RERANKED), allowed)
        results = []
        for query, ids in zip(descriptors, nearest, strict=True):
            found = self._table.take(self._offsets[ids[ids >= 0]].tolist())
            intact = intact_rows(found, self._card)
            self.degraded |= len(intact) < len(found)
            vectors = descriptor_matrix(intact).astype(np.float32)
            results.append(rank_rows(intact, vectors, query, k))
        return results

    def considered(self, within: RowFilter | None) -> int:
        """Return how many rows a filter leaves; all of them without one.

        Raises:
            CorruptStore: a data file cannot be read.
        """
        return self.count if within is None else int(self._allowed(within).sum())

    def _allowed(self, within: RowFilter) -> npt.NDArray[np.bool_]:
        return scanned_rows_left(within, self._table)[self._offsets]

    def _coded(
        self, partition: Partition, offsets: list[npt.NDArray[np.int64]]
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the codes of the partition's rows, and note where in the table each lies."""
        start = 0
        for batch in self._table.scan(["image_id", "code"]):
            places = pa.array(np.arange(start, start + len(batch)), pa.int64())
            start += len(batch)
            kept = rows_in(partition, batch.append_column("offset", places))
            kept = kept.filter(kept["code"].is_valid())
            offsets.append(np.asarray(kept["offset"]))
            yield code_matrix(kept)


def _given(codes: npt.NDArray[np.uint8] | None, count: int) -> npt.NDArray[np.uint8]:
    if codes is None or len(codes) != count:
        raise InvalidBatch("search by codes needs a code for each query: extract them with the store's model")
    return np.ascontiguousarray(codes)
