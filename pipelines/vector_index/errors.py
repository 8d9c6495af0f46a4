"""Errors of building an index."""

from __future__ import annotations

from storage.errors import StoreError

__all__ = ["IndexNeedsEights", "IndexRecallTooLow"]


class IndexNeedsEights(StoreError):
    """Many workers build an index whose codes need a multiple of eight dimensions."""

    reason = "index_needs_eights"
    exit_code = 5


class IndexRecallTooLow(StoreError):
    """The index finds too few of the exact nearest, even with the longest codes."""

    reason = "index_recall_too_low"
    exit_code = 5
