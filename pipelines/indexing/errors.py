"""Why a source does not fit what a store already has from it or from others."""

from __future__ import annotations

from storage.errors import PlacerayError

__all__ = ["IdsTaken", "PruneRefused", "UnknownSource"]


class IdsTaken(PlacerayError):
    """The ids of a source that the store has not seen belong to other photos; nothing was extracted."""

    reason = "ids_taken"


class PruneRefused(PlacerayError):
    """Rows are not removed, since the source may be there in part only; nothing was extracted."""

    reason = "prune_refused"


class UnknownSource(PlacerayError):
    """The store has no photo of the source that a library is said to have been before."""

    reason = "unknown_source"
