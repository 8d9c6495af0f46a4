"""How much of a CPU's caches a core has."""

from __future__ import annotations

from pathlib import Path

from storage.cores import usable_cores

__all__ = ["cache_share"]

_CPUS = Path("/sys/devices/system/cpu")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def cache_share(cpus: Path = _CPUS) -> int | None:
    """Return a core's bytes of the second and third level caches, shared with the cores beside it.

    Args:
        cpus: Where Linux describes the CPUs, one folder each.

    Returns:
        The bytes that are left to each core while all of them work, as the first usable core's caches say;
        None where the system does not say. A virtual machine may be told of a cache that it shares with
        others.
    """
    share = 0
    for cache in (cpus / f"cpu{usable_cores()[0]}" / "cache").glob("index*"):
        try:
            level, size, beside = (
                (cache / name).read_text().strip() for name in ("level", "size", "shared_cpu_list")
            )
            if int(level) >= 2:
                share += int(size[:-1]) * _UNITS[size[-1]] // _count(beside)
        except (OSError, ValueError, KeyError, IndexError):
            return None
    return share or None


def _count(cores: str) -> int:
    """Return how many cores a list such as `0-3,8` names."""
    ranges = [each.split("-") for each in cores.split(",")]
    return sum(int(each[-1]) - int(each[0]) + 1 for each in ranges)
