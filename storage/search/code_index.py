"""Nearest binary codes by Hamming distance: exact, or through inverted lists that measure their own recall.

Each half of the rows is an index of FAISS of its own, searched by a thread of its own, since FAISS gives one
query to one thread. Further rows are compared exactly, until `extended` puts all of them into lists.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.cores import usable_cores
from storage.search.code_lists import CodeLists, train_centres
from storage.search.faiss_module import import_faiss, selector

__all__ = ["EXACT_CODES", "TARGET_RECALL", "CodeIndex"]

EXACT_CODES = 1_000_000  # beyond, inverted lists
TARGET_RECALL = 0.99
_MARGIN = 0.002  # the measured recall is an estimate from a sample
_TARGET_K, _SAMPLE_QUERIES = 100, 200
_BLOCK = 1 << 18
_SAMPLES_PER_LIST = 40
_MAX_PARTS = 8
_DELTA_ROWS = 65_536  # of a part that further rows are copied into
_GROWTH = 0.1  # beyond this share of rows without lists, lists of all are made


class CodeIndex:
    """The nearest of packed binary codes; immutable, safe to share between threads.

    Attributes:
        count: Number of rows, N, with those that are gone.
        recall: Recall@100 against exact search, measured with its own rows as queries.
        lists: Number of inverted lists of each part; 0: every row is compared.
        probes: How many of them a query probes.
    """

    def __init__(
        self,
        blocks: Iterable[npt.NDArray[np.uint8]],
        rows: int,
        *,
        bits: int,
        inverted: bool | None = None,
        target: float = TARGET_RECALL,
    ) -> None:
        """Build and measure.

        Args:
            blocks: The codes in order, (n, bits / 8) uint8 each.
            rows: How many there are in all.
            bits: Of a code, a multiple of eight.
            inverted: Whether to build inverted lists; default: beyond a million rows.
            target: Recall of inverted lists to reach.
        """
        self.count, self.recall, self.lists, self.probes = rows, 1.0, 0, 0
        self._bits, self._target, self._exact_codes = bits, target, EXACT_CODES
        parts = max(1, min(_MAX_PARTS, len(usable_cores()), rows // 4096))
        self._starts = [rows * part // parts for part in range(parts + 1)]
        self._pool = ThreadPoolExecutor(parts, thread_name_prefix="codes")
        codes = np.empty((rows, bits // 8), np.uint8)
        at = 0
        for block in blocks:
            codes[at : at + len(block)] = block
            at += len(block)
        if at != rows:
            raise ValueError(f"{at} codes for {rows} rows")
        self._parts: list[Any] = []
        if rows > EXACT_CODES if inverted is None else inverted:
            self._build_lists(codes, target)
        else:
            self._build_flat(codes)
        # Only lists are worth a rebuild: flat parts are as good as one.
        self._built, self._built_parts = (rows if self.lists else 0), len(self._parts)

    def search(
        self, queries: npt.NDArray[np.uint8], k: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.int64]:
        """Return (B, k) int64: rows by ascending Hamming distance, ties by row, -1 padded.

        Args:
            queries: (B, bits / 8) uint8.
            k: Number of rows per query.
            allowed: (N,) bool: which rows may be found; default: all.
        """
        if not self.count or not len(queries):
            return np.full((len(queries), k), -1, np.int64)
        return self._nearest(queries, k, allowed)[1]

    def _nearest(
        self, queries: npt.NDArray[np.uint8], k: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return (B, k) distances, `bits` + 1 where none is left, and rows as of `search`."""
        searches: list[Callable[[], tuple[Any, Any]]] = [
            lambda part=part, start=start: self._search_part(  # type: ignore[misc]
                part, start, queries, k, allowed
            )
            for part, start in zip(self._parts, self._starts, strict=False)
        ]
        found = list(self._pool.map(lambda search: search(), searches))
        distances = np.concatenate([part[0] for part in found], axis=1)
        ids = np.concatenate([part[1] for part in found], axis=1)
        order = np.lexsort((ids, distances), axis=1)[:, :k]
        distances = np.take_along_axis(distances, order, axis=1)
        return distances, np.where(distances > self._bits, -1, np.take_along_axis(ids, order, axis=1))

    def grown(self, stored: npt.NDArray[np.uint8]) -> CodeIndex:
        """Return this index with (n, bits / 8) further codes."""
        faiss = import_faiss()
        index = copy.copy(self)
        index._parts, index._starts = list(self._parts), list(self._starts)
        part = faiss.IndexBinaryFlat(self._bits)
        if len(index._parts) > self._built_parts and index._parts[-1].ntotal < _DELTA_ROWS:
            part = faiss.clone_binary_index(index._parts.pop())
            index._starts.pop()
        part.add(np.ascontiguousarray(stored))
        index._parts.append(part)
        index.count = self.count + len(stored)
        index._starts.append(index.count)
        return index

    def extension_due(self, alive: npt.NDArray[np.bool_]) -> bool:
        """Return whether so many rows are compared exactly that `extended` should be called."""
        further = self.count - self._built
        return self.count > self._exact_codes and further > _GROWTH * max(1, self._built)

    def extended(self, alive: npt.NDArray[np.bool_]) -> CodeIndex:
        """Return an index of the same rows in inverted lists; see `VectorIndex.extended`."""
        stored = self._from(0)
        return CodeIndex([stored], len(stored), bits=self._bits, inverted=True, target=self._target)

    def joined(self, newer: CodeIndex) -> CodeIndex:
        """Return this index with the rows that `newer` has beyond."""
        return self.grown(newer._from(self.count)) if newer.count > self.count else self

    def _from(self, first: int) -> npt.NDArray[np.uint8]:
        """Return the codes of the rows from `first` on."""
        pieces = [
            self._codes_of(part, np.arange(max(0, first - start), part.ntotal))
            for part, start in zip(self._parts, self._starts, strict=False)
            if start + part.ntotal > first
        ]
        return np.concatenate(pieces) if pieces else np.empty((0, self._bits // 8), np.uint8)

    def _codes_of(self, part: Any, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return the codes of rows (n,) of a part, counted from its first."""
        if isinstance(part, CodeLists):
            return part.codes_of(rows)
        # A view: FAISS's own copy of all of them would be made for a few.
        held = import_faiss().rev_swig_ptr(part.xb.data(), part.ntotal * self._bits // 8)
        return np.asarray(held.reshape(-1, self._bits // 8)[rows])

    def _search_part(
        self,
        part: Any,
        start: int,
        queries: npt.NDArray[np.uint8],
        k: int,
        allowed: npt.NDArray[np.bool_] | None,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        faiss = import_faiss()
        faiss.omp_set_num_threads(1)  # of this thread
        if allowed is None:
            distances, ids = part.search(queries, min(k, part.ntotal))
        elif isinstance(part, CodeLists):  # FAISS selects nothing from inverted lists of codes
            return self._selected(part, start, queries, k, allowed[start : start + part.ntotal])
        else:
            chosen = faiss.SearchParameters(sel=selector(allowed[start : start + part.ntotal]))
            distances, ids = part.search(queries, min(k, part.ntotal), params=chosen)
        distances = distances.astype(np.int64)
        distances[ids < 0] = self._bits + 1
        return distances, np.where(ids < 0, np.iinfo(np.int64).max, ids + start)

    def _selected(
        self, part: Any, start: int, queries: npt.NDArray[np.uint8], k: int, allowed: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Search lists for more than k where few rows are left out; else compare those that are not."""
        left = int(allowed.sum())
        if 2 * left >= len(allowed):
            distances, ids = part.search(queries, min(3 * k, part.ntotal))
            ok = (ids >= 0) & allowed[np.maximum(ids, 0)]
            if (ok.sum(axis=1) >= min(k, left)).all():
                apart = np.where(ok, distances.astype(np.int64), self._bits + 1)
                return apart, np.where(ok, ids + start, np.iinfo(np.int64).max)
        return self._compared(part, start, queries, np.flatnonzero(allowed), min(k, part.ntotal))

    def _compared(
        self, part: Any, start: int, queries: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64], k: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Compare rows of a part with every query: (B, k) distances and rows, padded as a part's are."""
        distances = np.full((len(queries), k), self._bits + 1, np.int64)
        best = np.full((len(queries), k), np.iinfo(np.int64).max)
        codes = _words(self._codes_of(part, rows))
        for row, query in enumerate(_words(queries)):
            apart = np.bitwise_count(codes ^ query).sum(axis=1, dtype=np.int64)
            order = np.argsort(apart, kind="stable")[:k]
            distances[row, : len(order)], best[row, : len(order)] = apart[order], start + rows[order]
        return distances, best

    def _build_flat(self, codes: npt.NDArray[np.uint8]) -> None:
        faiss = import_faiss()
        for start, stop in zip(self._starts, self._starts[1:], strict=False):
            flat = faiss.IndexBinaryFlat(self._bits)
            for at in range(start, stop, _BLOCK):
                flat.add(codes[at : min(stop, at + _BLOCK)])
            self._parts.append(flat)

    def _build_lists(self, codes: npt.NDArray[np.uint8], target: float) -> None:
        """Cluster a sample, put every row of each part into its list, and choose the number of probes."""
        self.lists = int(2 ** np.ceil(np.log2(max(16.0, np.sqrt(self.count)))))
        sample = codes[_evenly(self.count, _SAMPLES_PER_LIST * self.lists)]
        centres = train_centres(sample, self.lists, max_per_list=_SAMPLES_PER_LIST)
        for start, stop in zip(self._starts, self._starts[1:], strict=False):
            self._parts.append(CodeLists(centres, codes[start:stop]))
        self._measure(codes[_evenly(self.count, _SAMPLE_QUERIES)], centres, target)

    def _measure(self, sample: npt.NDArray[np.uint8], centres: Any, target: float) -> None:
        """Choose the fewest probes that reach the target, with a sample of the rows as queries.

        The nearest rows of each are found once, in all lists; each needs as many probes as the rank of the
        centre of its list. Another row at the same distance would do as well: recall is at least this.
        """
        self._probe(self.lists)
        _, nearest = self._nearest(sample, min(_TARGET_K, self.count - 1) + 1)
        _, order = centres.search(sample, self.lists)
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(self.lists)[None], axis=1)
        needed = np.sort(np.take_along_axis(ranks, self._lists_of(nearest), axis=1), axis=None) + 1
        wanted = int(np.ceil(min(1.0, target + _MARGIN) * needed.size))
        self._probe(int(needed[wanted - 1]))
        self.recall = float((needed <= self.probes).mean())

    def _lists_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        lists = np.empty_like(rows)
        for part, start in zip(self._parts, self._starts, strict=False):
            own = (rows >= start) & (rows < start + part.ntotal)
            lists[own] = part.lists_of(rows[own] - start)
        return lists

    def _probe(self, probes: int) -> None:
        self.probes = probes
        for part in self._parts:
            part.probes = probes


def _evenly(rows: int, count: int) -> npt.NDArray[np.int64]:
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).astype(np.int64))


def _words(codes: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """Return packed codes in words of eight bytes where their width allows it: eight times fewer to count."""
    return np.ascontiguousarray(codes).view(np.uint64) if codes.shape[1] % 8 == 0 else codes
