"""Errors of places and their calibration."""

from __future__ import annotations

from storage.errors import PlacerayError

__all__ = ["LevelNotPromised", "NotCalibrated", "TooFewPhotos"]


class NotCalibrated(PlacerayError):
    """A share of wrong answers was asked for, and no valid calibration promises any."""

    reason = "not_calibrated"
    exit_code = 5
    http_status = 409


class LevelNotPromised(PlacerayError, ValueError):
    """A share of wrong answers below the smallest that the calibration promises."""

    reason = "level_not_promised"
    http_status = 422


class TooFewPhotos(PlacerayError, ValueError):
    """The labelled photos do not suffice for a promise."""

    reason = "too_few_photos"
