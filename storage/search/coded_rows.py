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

from storage.search.allocator import return_free_memory
from storage.search.descriptor_blocks import DescriptorBlocks, Mask
from storage.search.faiss_module import import_faiss, selector
from storage.search.packed_lists import PackedLists
from storage.search.reduction import Sample, Trial, evenly, reduction
from storage.search.shared_cores import shared_cores

__all__ = ["CodedRows", "Training"]

_SAMPLES_PER_LIST = 64
# Rows at a time, as float32: of the second pass fewer, when codes are beside the descriptors.
_ASSIGNED_BLOCK, _CODED_BLOCK = 32_768, 4096
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
    def of(cls, blocks: DescriptorBlocks, alive: Mask, trial: Trial) -> Training:
        """Learn from an even sample of the rows `alive` (N,); the components are chosen by `trial`."""
        faiss = import_faiss()
        rows = int(alive.sum())
        # 512 lists for 100,000 rows, 2,048 for a million.
        lists = int(2 ** round(math.log2(2 * math.sqrt(rows))))
        sample = Sample(blocks, np.flatnonzero(alive)[evenly(rows, _SAMPLES_PER_LIST * lists)])
        reduce, components = reduction(sample, trial)
        coarse = faiss.IndexFlatL2(components)
        coded = faiss.IndexIVFPQFastScan(coarse, components, lists, components // 2, 4)
        coded.cp.max_points_per_centroid = _SAMPLES_PER_LIST
        coded.cp.min_points_per_centroid = 1  # no warning on stderr about few rows
        coded.train(sample.reduced(reduce, components))
        trained = faiss.IndexPreTransform(reduce, coded)
        trained.is_trained = True
        empty = faiss.clone_index(trained)  # which owns its parts; FAISS only keeps addresses otherwise
        return cls(lists, components, rows, empty)

    @property
    def packer(self) -> Any:
        """FAISS's packer of the codes, part of `empty`."""
        faiss = import_faiss()
        return faiss.downcast_InvertedLists(faiss.downcast_index(self.empty.index).invlists).packer


class CodedRows:
    """The codes of the rows before `stop`, without those that were gone; immutable.

    Attributes:
        training: What the codes were made with.
        stop: The row after the last.
        count: How many are in it.
    """

    def __init__(
        self, training: Training, blocks: DescriptorBlocks, alive: Mask, *, former: CodedRows | None = None
    ) -> None:
        """Encode rows.

        All are assigned to lists before the first is encoded: the lists are made as long as they must be.

        Args:
            training: What the codes are made with.
            blocks: Descriptors of all rows.
            alive: (stop,) bool: which of them are encoded.
            former: Codes to keep beside them, of which `alive` changes nothing; they stay as they are.
        """
        faiss = import_faiss()
        self.training, self.stop = training, len(alive)
        self._index: Any = faiss.clone_index(training.empty)
        self._lists = faiss.downcast_index(self._index.index)
        start, before = (0, None) if former is None else (former.stop, former._packed)
        chosen = self._assigned(blocks, alive, start)
        sizes = np.bincount(chosen + 1, minlength=training.lists + 1)
        rows = np.argsort(chosen, kind="stable")[sizes[0] :]  # without those that are not alive
        rows += start
        del chosen
        self._packed: PackedLists = PackedLists(training.packer, rows, sizes[1:], before)
        self.count: int = int(self._packed.sizes.sum())
        del rows
        return_free_memory()  # what training needed is not held beside all codes
        self._packed.fill(
            lambda some: self._lists.pq.compute_codes(self._reduced(blocks, some)), block=_CODED_BLOCK
        )
        self._lists.replace_invlists(self._packed.faiss_lists, False)
        self._lists.ntotal = self._index.ntotal = self.count

    def extended(self, blocks: DescriptorBlocks, alive: Mask) -> CodedRows:
        """Return these codes and those of further rows.

        In one index: each further one would take as long to search as 50,000 rows, however few it holds.

        Args:
            blocks: Descriptors of all rows.
            alive: (N,) bool: which of the rows from `stop` on are encoded.
        """
        return CodedRows(self.training, blocks, alive, former=self)

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
        with shared_cores():
            ids = self._index.search(queries, min(k, max(1, self.count)), params=parameters)[1]
        return np.asarray(ids)

    def _assigned(self, blocks: DescriptorBlocks, alive: Mask, start: int) -> npt.NDArray[np.int32]:
        """Return (N - start,) int32: the list of each row from `start` on; -1: it is not alive."""
        chosen = np.full(len(alive) - start, -1, np.int32)
        for at in range(start, len(alive), _ASSIGNED_BLOCK):
            rows = at + np.flatnonzero(alive[at : at + _ASSIGNED_BLOCK])
            if len(rows):
                chosen[rows - start] = self._lists.quantizer.assign(self._reduced(blocks, rows), 1)[:, 0]
        return chosen

    def _reduced(self, blocks: DescriptorBlocks, rows: npt.NDArray[np.int64]) -> Any:
        return self._index.chain.at(0).apply(blocks.reconstruct(rows))
