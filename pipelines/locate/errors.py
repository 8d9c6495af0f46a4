"""Errors of locating photos and of writing their positions."""

from __future__ import annotations

from storage.errors import PlacerayError

__all__ = ["BadReview"]


class BadReview(PlacerayError, ValueError):
    """A list of reviewed photos, or of what was written, that cannot be used."""

    reason = "bad_review"
