"""Errors of tracks."""

from __future__ import annotations

from storage.errors import PlacerayError

__all__ = ["AnotherAggregation", "BadTrack", "VersionGone"]


class BadTrack(PlacerayError, ValueError):
    """Frames, matches or odometry that make no track."""

    reason = "bad_track"
    http_status = 422


class AnotherAggregation(PlacerayError):
    """Answers whose descriptors were made in another way than the store's are now."""

    reason = "another_aggregation"
    exit_code = 5
    http_status = 409


class VersionGone(PlacerayError):
    """Answers from a version that the store does not keep, so that nobody can tell what made them."""

    reason = "version_gone"
    exit_code = 5
    http_status = 409
