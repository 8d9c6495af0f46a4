from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from storage.search.allocator import use_large_pages

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
MIB = 1 << 20


@pytest.mark.skipif(
    not ENABLED.exists() or "[never]" in ENABLED.read_text(), reason="this system has no large pages"
)
def test_memory_lies_in_large_pages_and_holds_what_is_written() -> None:
    mapped = mmap.mmap(-1, 16 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory = np.frombuffer(mapped, np.uint8)
    use_large_pages(memory)
    memory[:] = 7
    assert _large_bytes(memory.ctypes.data) >= 4 * MIB
    assert (memory == 7).all()


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_memory_of_less_than_a_page_is_left_alone(size: int) -> None:
    memory = np.full(size, 3, np.uint8)
    use_large_pages(memory)
    assert (memory == 3).all()


def _large_bytes(address: int) -> int:
    """Return how much of the mapping that holds an address lies in large pages."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *rest = line.split()
        if "-" in name and not name.endswith(":"):
            first, last = (int(part, 16) for part in name.split("-"))
            inside = first <= address < last
        elif inside and name == "AnonHugePages:":
            return int(rest[0]) << 10
    raise AssertionError("the mapping is not listed")
