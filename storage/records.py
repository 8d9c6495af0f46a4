"""Stored rows and search hits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from storage.position import Position

__all__ = ["Candidate", "ImageRecord"]


@dataclass(frozen=True)
class ImageRecord:
    """What is known of one indexed image, without its descriptor.

    Attributes:
        image_id: Primary key, stable between runs.
        uri: Where the image was read from.
        sha256: Hex digest of the encoded image's bytes.
        width: Upright width in pixels.
        height: Upright height in pixels.
        lat: Latitude in degrees (WGS84), or None.
        lon: Longitude in degrees (WGS84), or None.
        utm_e: UTM easting in metres, or None.
        utm_n: UTM northing in metres, or None.
        utm_zone: UTM zone such as `33U` or `33`, or None when unknown.
        heading_deg: Compass direction of view in degrees, or None.
        captured_at: When the photo was taken, or None.
        shard: Name of the feature shard, without its suffix.
        row: Row in that shard.
    """

    image_id: str
    uri: str
    sha256: str
    width: int
    height: int
    lat: float | None
    lon: float | None
    utm_e: float | None
    utm_n: float | None
    utm_zone: str | None
    heading_deg: float | None
    captured_at: datetime | None
    shard: str
    row: int

    @property
    def position(self) -> Position:
        """Where the photo was taken."""
        return Position(self.lat, self.lon, self.utm_e, self.utm_n, self.utm_zone)


@dataclass(frozen=True)
class Candidate:
    """A search hit.

    Attributes:
        record: The stored row.
        similarity: Cosine similarity of the global descriptors, -1..1.
    """

    record: ImageRecord
    similarity: float
