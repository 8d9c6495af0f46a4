"""Inverted lists of packed codes in one piece of memory, of exactly the size that their rows need.

FAISS's own lists of such codes double when they are full, so that a third of their memory is empty, and lists
that grow side by side leave holes behind. These know their sizes before they are filled. They use FAISS's lists
for mapped files (OnDiskInvertedLists) with anonymous memory instead of a file.

A row takes its code, its number, eight bytes, and in the last block of a list up to 31 rows are empty.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.search.faiss_module import import_faiss

__all__ = ["PackedLists"]

_ALIGNED = 32  # bytes; codes are read in as many at a time


class PackedLists:
    """Codes and numbers of rows in the lists of one index; not changed once they are full.

    Attributes:
        sizes: (lists,) int64: how many rows each has room for.
    """

    def __init__(self, packer: Any, sizes: npt.NDArray[np.int64], former: PackedLists | None = None) -> None:
        """Reserve memory, which is zero.

        Args:
            packer: FAISS's packer of the codes; the caller keeps it alive.
            sizes: (lists,) how many rows each list will have, with those of `former`.
            former: Lists whose rows come first.

        Raises:
            MemoryError: there is not enough.
        """
        faiss = import_faiss()
        self._packer, self.sizes = packer, sizes
        self._blocks = -(-sizes // packer.nvec)
        numbers_at = self._blocks * packer.block_size
        lengths = -(-(numbers_at + 8 * sizes) // _ALIGNED) * _ALIGNED
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        self._numbers_at = self._starts[:-1] + numbers_at
        self._filled = np.zeros(len(sizes), np.int64)
        self.faiss_lists: Any = faiss.OnDiskInvertedLists()
        self.faiss_lists.nlist, self.faiss_lists.code_size = len(sizes), packer.code_size
        self._memory = self._mapped(max(1, int(self._starts[-1])))
        for start, blocks, size in zip(self._starts, self._blocks, sizes, strict=False):
            described = faiss.OnDiskOneList()
            described.size, described.capacity = int(size), int(blocks) * packer.nvec
            described.offset = int(start)
            self.faiss_lists.lists.push_back(described)
        if former is not None:
            self._copy(former)

    @property
    def nbytes(self) -> int:
        """Bytes of codes and numbers."""
        return len(self._memory)

    def append(self, number: int, rows: npt.NDArray[np.int64], codes: npt.NDArray[np.uint8]) -> None:
        """Put rows (n,) with their codes (n, bytes) after those that a list has."""
        faiss, width = import_faiss(), self._packer.nvec
        at = int(self._filled[number])
        self._filled[number] = stop = at + len(rows)
        assert stop <= self.sizes[number]
        self._numbers_of(number)[at:stop] = rows
        blocks = self._blocks_of(number)
        whole = range(-(-at // width) * width, stop // width * width, width)  # blocks that these rows fill
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
        self.faiss_lists.ptr, self.faiss_lists.totsize = import_faiss().swig_ptr(memory), size
        return memory

    def _copy(self, former: PackedLists) -> None:
        """Take over the rows of other lists, whole blocks at a time."""
        for number, count in enumerate(former._filled.tolist()):
            held = former._blocks_of(number)
            self._blocks_of(number)[: len(held)] = held
            self._numbers_of(number)[:count] = former._numbers_of(number)[:count]
            self._filled[number] = count

    def _blocks_of(self, number: int) -> npt.NDArray[np.uint8]:
        """Return (blocks, bytes of a block) uint8, the memory itself."""
        held = self._memory[self._starts[number] : self._numbers_at[number]]
        return held.reshape(-1, self._packer.block_size)

    def _numbers_of(self, number: int) -> npt.NDArray[np.int64]:
        """Return (rows,) int64, the memory itself."""
        start = self._numbers_at[number]
        return self._memory[start : start + 8 * self.sizes[number]].view(np.int64)
