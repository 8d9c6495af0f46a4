"""Rows as short codes in inverted lists, and how they are trained.

Principal components (`reduction`); inverted lists of 4-bit product codes over them (IVF with PQ fast scan;
Jegou et al. 2011, Andre et al. 2015).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.search.descriptor_blocks import DescriptorBlocks, Mask
from storage.search.faiss_module import import_faiss, selector
from storage.search.reduction import Trial, evenly, reduction

__all__ = ["CodedRows", "Training"]

_SAMPLES_PER_LIST = 64
_CODED_BLOCK = 32_768
_BY_LIST = 15  # FAISS's number for this implementation
_MIN_BATCH = 3  # queries that are parallelised by query


@dataclass(frozen=True, eq=False)
class Training:
    """What was learned from a sample of the rows: components, lists and codes.

    Attributes:
        lists: Number of inverted lists.
        components: Number of principal components that the codes cover.
        rows: How many rows there were.
    """

    lists: int
    components: int
    rows: int
    empty: Any  # an index of FAISS without rows

    @classmethod
    def of(cls, blocks: DescriptorBlocks, alive: npt.NDArray[np.int64], trial: Trial) -> Training:
        """Learn from an even sample of the rows `alive` (n,); the components are chosen by `trial`."""
        faiss = import_faiss()
        # 512 lists for 100,000 rows, 2,048 for a million.
        lists = int(2 ** round(math.log2(2 * math.sqrt(len(alive)))))
        sample = blocks.reconstruct(alive[evenly(len(alive), _SAMPLES_PER_LIST * lists)])
        reduce, components = reduction(sample, trial)
        coarse = faiss.IndexFlatL2(components)
        coded = faiss.IndexIVFPQFastScan(coarse, components, lists, components // 2, 4)
        coded.cp.max_points_per_centroid = _SAMPLES_PER_LIST
        coded.cp.min_points_per_centroid = 1  # no warning on stderr about few rows
        trained = faiss.IndexPreTransform(reduce, coded)
        trained.train(sample)
        empty = faiss.clone_index(trained)  # which owns its parts; FAISS only keeps addresses otherwise
        return cls(lists, components, len(alive), empty)


class CodedRows:
    """The codes of the rows before `stop`, without those that were gone; immutable.

    Attributes:
        training: What the codes were made with.
        stop: The row after the last.
        count: How many are in it.
    """

    def __init__(
        self,
        training: Training,
        blocks: DescriptorBlocks,
        alive: npt.NDArray[np.int64],
        stop: int,
        *,
        former: CodedRows | None = None,
    ) -> None:
        """Encode rows.

        Args:
            training: What the codes are made with.
            blocks: Descriptors of all rows.
            alive: (n,) which of them are encoded.
            stop: The row after the last.
            former: Codes to keep beside them; it stays as it is.
        """
        faiss = import_faiss()
        self.training, self.stop = training, stop
        self.count: int = len(alive) + (0 if former is None else former.count)
        self._index: Any = faiss.clone_index(training.empty if former is None else former._index)
        for at in range(0, len(alive), _CODED_BLOCK):
            ids = np.ascontiguousarray(alive[at : at + _CODED_BLOCK])
            self._index.add_with_ids(blocks.reconstruct(ids), ids)
        self._lists = faiss.downcast_index(self._index.index)

    def extended(self, blocks: DescriptorBlocks, alive: npt.NDArray[np.int64], stop: int) -> CodedRows:
        """Return these codes and those of the rows `alive` from here to `stop`.

        In one index: each further one would take as long to search as 50,000 rows, however few it holds.
        """
        return CodedRows(self.training, blocks, alive, stop, former=self)

    def nearest(
        self, queries: npt.NDArray[np.float32], k: int, *, probes: int, allowed: Mask | None = None
    ) -> npt.NDArray[np.int64]:
        """Return (B, k) rows, best first by approximate distance, -1 padded.

        Args:
            queries: (B, D) float32, unit L2 norm.
            k: Number of rows per query.
            probes: How many lists a query probes.
            allowed: (N,) bool of all rows: which may be found; default: all.
        """
        faiss = import_faiss()
        chosen = {} if allowed is None else {"sel": selector(allowed[: self.stop])}
        parameters = faiss.SearchParametersIVF(nprobe=probes, **chosen)
        # Few queries are parallelised by list, many by query. A race between two threads here costs time, not
        # correctness.
        self._lists.implem = _BY_LIST if len(queries) < _MIN_BATCH else 0
        ids = self._index.search(queries, min(k, max(1, self.count)), params=parameters)[1]
        return np.asarray(ids)
