"""Stored rows and search hits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from storage.position import Position

__all__ = ["Candidate", "ImageRecord"]


@dataclass(frozen=True)
class ImageRecord:
    """One indexed image, without its descriptor.

    Attributes:
        image_id: Primary key, stable between runs.
        uri: Where the image was read from.
        sha256: Hex digest of the encoded image's bytes.
        width: Upright width in pixels.
        height: Upright height in pixels.
        position: Where the photo was taken; its values are also `lat`, `lon`, `utm_e`, `utm_n`, `utm_zone`.
        heading_deg: Compass direction of view in degrees, or None.
        captured_at: When the photo was taken, or None.
        shard: Name of the feature shard, without its suffix.
        row: Row in that shard.
        source: The folder, listing or URI that the photo was indexed from, or None in rows from before
            format 3.
        tags: A JSON array of strings, or None.
    """

    image_id: str
    uri: str
    sha256: str
    width: int
    height: int
    position: Position
    heading_deg: float | None
    captured_at: datetime | None
    shard: str
    row: int
    source: str | None = None
    tags: str | None = None

    @property
    def lat(self) -> float | None:
        """Latitude in degrees (WGS84), or None."""
        return self.position.lat

    @property
    def lon(self) -> float | None:
        """Longitude in degrees (WGS84), or None."""
        return self.position.lon

    @property
    def utm_e(self) -> float | None:
        """UTM easting in metres, or None."""
        return self.position.utm_e

    @property
    def utm_n(self) -> float | None:
        """UTM northing in metres, or None."""
        return self.position.utm_n

    @property
    def utm_zone(self) -> str | None:
        """UTM zone such as `33U` or `33`, or None when unknown."""
        return self.position.utm_zone


@dataclass(frozen=True)
class Candidate:
    """A search hit.

    Attributes:
        record: The stored row.
        similarity: Cosine similarity of the global descriptors, -1..1.
    """

    record: ImageRecord
    similarity: float
