"""The words of the system as frozen dataclasses: stored rows, search hits, re-ranked matches, answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["Candidate", "ImageRecord", "Match", "QueryResult"]


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


@dataclass(frozen=True)
class Candidate:
    """A search hit.

    Attributes:
        record: The stored row.
        similarity: Cosine similarity of the global descriptors, -1..1.
    """

    record: ImageRecord
    similarity: float


@dataclass(frozen=True)
class Match:
    """A ranked answer.

    Attributes:
        rank: 1 for the best.
        record: The stored row.
        similarity: Cosine similarity of the global descriptors, -1..1.
        mutual_matches: Mutual nearest neighbours between the local features; None where not re-ranked.
    """

    rank: int
    record: ImageRecord
    similarity: float
    mutual_matches: int | None


@dataclass(frozen=True)
class QueryResult:
    """The answer to one query.

    Attributes:
        model: Name of the model that answered.
        store_version: The one store version every part of the answer comes from.
        degraded: True when something stored could not be used (corrupt row or features); the rest is right.
        matches: Best first.
        timings_ms: Milliseconds for decode, extract, search, fetch, rerank and total.
    """

    model: str
    store_version: int
    degraded: bool
    matches: tuple[Match, ...]
    timings_ms: dict[str, float]
