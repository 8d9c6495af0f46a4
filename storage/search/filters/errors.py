"""The error of a filter that cannot be used."""

from __future__ import annotations

from storage.errors import PlacerayError

__all__ = ["BadFilter"]


class BadFilter(PlacerayError, ValueError):
    """A filter or a prior with values that are out of range, or GeoJSON that is not a polygon."""

    reason = "bad_filter"
    http_status = 422
    http_reason = "bad_parameter"
