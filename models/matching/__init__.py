"""Mutual nearest neighbours between local features, on CPUs and GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.matching.mutual import matched_pairs, mutual_nn_count

__all__ = ["matched_pairs", "mutual_nn_count"]


def __getattr__(name: str) -> Any:
    # On first use: modules of this package are read where torch is not wanted.
    if name in __all__:
        from models.matching import mutual

        return getattr(mutual, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
