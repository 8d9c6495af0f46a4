"""Matching of local features: mutual nearest neighbours on CPUs and GPUs, binary features, early stopping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.matching.mutual import matched_pairs, mutual_nn_count

__all__ = ["matched_pairs", "mutual_nn_count"]


def __getattr__(name: str) -> Any:
    # Lazily: other modules of this package are imported by processes without torch.
    if name in __all__:
        from models.matching import mutual

        return getattr(mutual, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
