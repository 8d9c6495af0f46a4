"""Binary codes in inverted lists that hold each code once, and give the codes of rows back.

Inverted lists around centres of the codes (FAISS's IndexBinaryIVF). A row takes its code, its number in its
list, eight bytes, and where it lies, four bytes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.search.faiss_module import import_faiss

__all__ = ["CodeLists", "train_centres"]

_BLOCK = 1 << 18
_ROUNDS = 8  # of k-means


def train_centres(sample: npt.NDArray[np.uint8], lists: int, *, max_per_list: int) -> Any:
    """Return an index of FAISS that holds the centres of so many lists.

    Args:
        sample: (n, bits / 8) uint8.
        lists: Number of centres.
        max_per_list: How many of the sample are used for each.
    """
    faiss = import_faiss()
    bits = 8 * sample.shape[1]
    coarse = faiss.IndexBinaryFlat(bits)
    trained = faiss.IndexBinaryIVF(coarse, bits, lists)
    trained.cp.niter, trained.cp.max_points_per_centroid = _ROUNDS, max_per_list
    trained.cp.min_points_per_centroid = 1  # no warning on stderr about few rows
    trained.train(sample)
    return coarse


class CodeLists:
    """The nearest of a run of packed codes, through lists; immutable but for `probes`.

    Attributes:
        ntotal: Number of rows.
    """

    def __init__(self, centres: Any, codes: npt.NDArray[np.uint8]) -> None:
        """Put each code into the list of its nearest centre.

        Args:
            centres: As `train_centres` returns them.
            codes: (n, bits / 8) uint8, not kept.
        """
        faiss = import_faiss()
        self._centres = centres  # FAISS only keeps its address
        self._index = faiss.IndexBinaryIVF(centres, centres.d, centres.ntotal)
        self.ntotal = len(codes)
        chosen = np.empty(len(codes), np.int32)
        for at in range(0, len(codes), _BLOCK):
            block = np.ascontiguousarray(codes[at : at + _BLOCK])
            chosen[at : at + _BLOCK] = centres.search(block, 1)[1][:, 0]
        order = np.argsort(chosen, kind="stable")
        sizes = np.bincount(chosen, minlength=centres.ntotal)
        self._bounds = np.concatenate([[0], np.cumsum(sizes)])
        self._place = np.empty(len(codes), np.int32)  # of a row among all lists in a row
        self._place[order] = np.arange(len(codes), dtype=np.int32)
        # Whole lists at once: adding rows one by one leaves a third of the memory unused.
        for number, (start, stop) in enumerate(pairwise(self._bounds)):
            rows = np.ascontiguousarray(order[start:stop])
            held = np.ascontiguousarray(codes[rows])
            if len(rows):
                self._index.invlists.add_entries(
                    number, len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(held)
                )
        self._index.ntotal = len(codes)

    @property
    def probes(self) -> int:
        """How many lists a query probes."""
        return int(self._index.nprobe)

    @probes.setter
    def probes(self, count: int) -> None:
        self._index.nprobe = count

    def search(
        self, queries: npt.NDArray[np.uint8], k: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Return (B, k) Hamming distances and rows of the run, -1 padded."""
        distances, ids = self._index.search(queries, k)
        return distances, ids

    def lists_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the numbers of the lists of rows (n,)."""
        return np.searchsorted(self._bounds, self._place[rows], side="right") - 1

    def codes_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return (n, bits / 8) uint8: the codes of rows (n,), in their order."""
        faiss = import_faiss()
        place = self._place[rows]
        order = np.argsort(place, kind="stable")
        place = place[order]
        width = self._centres.d // 8
        codes = np.empty((len(rows), width), np.uint8)
        for number, (start, stop) in enumerate(pairwise(np.searchsorted(place, self._bounds).tolist())):
            if start < stop:
                first, last = self._bounds[number : number + 2].tolist()
                held = faiss.rev_swig_ptr(self._index.invlists.get_codes(number), (last - first) * width)
                codes[order[start:stop]] = held.reshape(-1, width)[place[start:stop] - first]
        return codes
