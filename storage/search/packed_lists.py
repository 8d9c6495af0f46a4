"""Inverted lists of packed codes in one piece of memory, of exactly the size that their rows need.

FAISS's own lists of such codes double when they are full, so that a third of their memory is empty, and
lists that grow side by side leave holes behind. The sizes of these are known before they are filled. They are
FAISS's lists for mapped files (OnDiskInvertedLists) with anonymous memory instead of a file.

A row takes its code, its number, eight bytes, and in the last block of a list up to 31 rows are empty.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.search.allocator import use_large_pages
from storage.search.faiss_module import import_faiss

__all__ = ["PackedLists"]

_ALIGNED = 32  # bytes; codes are read in as many at a time

Encode = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.uint8]]


class PackedLists:
    """Codes and numbers of rows in the lists of one index; not changed once they are full.

    Attributes:
        sizes: (lists,) int64: how many rows each has.
        faiss_lists: FAISS's inverted lists, for an index that this object must outlive.
    """

    def __init__(
        self,
        packer: Any,
        rows: npt.NDArray[np.int64],
        further: npt.NDArray[np.int64],
        former: PackedLists | None = None,
    ) -> None:
        """Reserve memory and put the numbers of rows into it; `fill` puts their codes beside them.

        Args:
            packer: FAISS's packer of the codes; the caller keeps it alive.
            rows: (n,) numbers, those of the first list first.
            further: (lists,) int64: how many of them are in each list.
            former: Full lists, whose rows come first and are copied.

        Raises:
            MemoryError: there is not enough.
        """
        faiss = import_faiss()
        self._packer = packer
        self._coded: npt.NDArray[np.int64] = np.zeros(len(further), np.int64)
        if former is not None:
            self._coded = former.sizes.copy()
        self.sizes: npt.NDArray[np.int64] = self._coded + further
        blocks = -(-self.sizes // packer.nvec)
        numbers_at = blocks * packer.block_size
        lengths = -(-(numbers_at + 8 * self.sizes) // _ALIGNED) * _ALIGNED
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        self._numbers_at = self._starts[:-1] + numbers_at
        self.faiss_lists: Any = faiss.OnDiskInvertedLists()
        # Threads that read lists ahead from a file. These are in memory: reading them twice took two fifths
        # of the time of a query.
        self.faiss_lists.prefetch_nthread = 0
        self.faiss_lists.nlist, self.faiss_lists.code_size = len(further), packer.code_size
        self._memory = self._mapped(max(1, int(self._starts[-1])))
        for start, count, size in zip(self._starts, blocks, self.sizes, strict=False):
            described = faiss.OnDiskOneList()
            described.size, described.capacity = int(size), int(count) * packer.nvec
            described.offset = int(start)
            self.faiss_lists.lists.push_back(described)
        for number, (start, stop) in enumerate(pairwise([0, *np.cumsum(further).tolist()])):
            self._numbers_of(number)[self._coded[number] :] = rows[start:stop]
            if former is not None:
                held = former._blocks_of(number)
                self._blocks_of(number)[: len(held)] = held
                self._numbers_of(number)[: self._coded[number]] = former._numbers_of(number)

    @property
    def nbytes(self) -> int:
        """Bytes of codes and numbers."""
        return len(self._memory)

    def fill(self, encode: Encode, *, block: int) -> None:
        """Encode the rows that have no codes yet.

        Args:
            encode: Takes numbers of rows (n,) int64, and returns their codes (n, bytes) uint8.
            block: How many rows at a time.
        """
        waiting: list[tuple[int, int, int]] = []  # list, first and last place in it
        room = block
        for number, size in enumerate(self.sizes.tolist()):
            start = int(self._coded[number])
            while start < size:
                stop = min(size, start + room)
                waiting.append((number, start, stop))
                room -= stop - start
                start = stop
                if not room:
                    self._encode(encode, waiting)
                    waiting, room = [], block
        if waiting:
            self._encode(encode, waiting)

    def _encode(self, encode: Encode, pieces: list[tuple[int, int, int]]) -> None:
        codes = encode(np.concatenate([self._numbers_of(number)[a:b] for number, a, b in pieces]))
        at = 0
        for number, start, stop in pieces:
            self._pack(number, start, codes[at : at + stop - start])
            self._coded[number] = stop
            at += stop - start

    def _pack(self, number: int, at: int, codes: npt.NDArray[np.uint8]) -> None:
        """Put codes into a list from a place on."""
        faiss, width, stop = import_faiss(), self._packer.nvec, at + len(codes)
        blocks = self._blocks_of(number)
        whole = range(-(-at // width) * width, stop // width * width, width)  # blocks that these codes fill
        for place in whole:
            some = np.ascontiguousarray(codes[place - at : place - at + width])
            self._packer.pack_all(faiss.swig_ptr(some), faiss.swig_ptr(blocks[place // width]))
        for place in (*range(at, min(whole.start, stop)), *range(max(whole.start, whole.stop), stop)):
            self._packer.pack_1(np.ascontiguousarray(codes[place - at]), place, blocks)

    def _mapped(self, size: int) -> npt.NDArray[np.uint8]:
        """Return memory that FAISS unmaps with the lists."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        address = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        if address == ctypes.c_void_p(-1).value:
            raise MemoryError(f"{size} bytes for an index cannot be reserved")
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        use_large_pages(memory)
        self.faiss_lists.ptr, self.faiss_lists.totsize = import_faiss().swig_ptr(memory), size
        return memory

    def _blocks_of(self, number: int) -> npt.NDArray[np.uint8]:
        """Return (blocks, bytes of a block) uint8, the memory itself."""
        held = self._memory[self._starts[number] : self._numbers_at[number]]
        return held.reshape(-1, self._packer.block_size)

    def _numbers_of(self, number: int) -> npt.NDArray[np.int64]:
        """Return (rows,) int64, the memory itself."""
        start = self._numbers_at[number]
        return self._memory[start : start + 8 * self.sizes[number]].view(np.int64)
