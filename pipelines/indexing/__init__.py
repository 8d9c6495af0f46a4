"""Indexing on Ray Data: decode, extract, write, commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.indexing.job import IndexReport, index

__all__ = ["IndexReport", "index"]


def __getattr__(name: str) -> Any:
    # On first use: workers import single stages.
    if name in __all__:
        from pipelines.indexing import job

        return getattr(job, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
