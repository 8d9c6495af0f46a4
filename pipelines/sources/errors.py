"""The error of a source that cannot be used."""

from __future__ import annotations

from storage.errors import PlacerayError

__all__ = ["SourceError"]


class SourceError(PlacerayError):
    """The source as a whole cannot be used; a single bad image is a rejected row instead."""

    reason = "source_error"
