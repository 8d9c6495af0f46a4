"""One photo that was to be located, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

__all__ = ["COLUMNS", "Entry", "Status"]

Status = Literal["located", "unknown", "has_position", "rejected"]
COLUMNS = (
    *("image", "folder", "sha256", "status", "lat", "lon", "utm_e", "utm_n", "utm_zone", "radius_m"),
    *("heading_deg", "probability_right", "known", "calibrated", "considered", "evidence", "reason"),
    *("calibration_reason", "guaranteed"),
)
_OF_PLACE = ("radius_m", "heading_deg", "probability_right", "known", "calibrated")
_OF_POSITION = ("lat", "lon", "utm_e", "utm_n", "utm_zone")


@dataclass(frozen=True)
class Entry:
    """A photo of the source.

    Attributes:
        image: Its name relative to the folder.
        folder: What it is relative to.
        path: Of the file, without links.
        sha256: Digest of the file; empty where it was not read.
        status: `located`; `unknown`: no candidate has a position, or the calibration does not call it known;
            `has_position`: its EXIF names one; `rejected`: it cannot be used.
        place: See `QueryResult.place`; None where it was not asked about.
        calibration: See `QueryResult.calibration`, or None.
        considered: Stored images that the filters left, or None.
        reason: Why it was rejected, or why it is unknown: `no_candidates` (the filters leave no stored image,
            or the store is empty), `no_position` (no candidate has one), `not_known` (the calibration does
            not call it known); or None.
        captured_at: From EXIF, or None.
    """

    image: str
    folder: str
    path: str
    sha256: str
    status: Status
    place: Mapping[str, Any] | None = None
    calibration: Mapping[str, Any] | None = None
    considered: int | None = None
    reason: str | None = None
    captured_at: datetime | None = None

    @property
    def has_position(self) -> bool:
        """Whether its place has a position."""
        return self.place is not None and self.place["position"] is not None

    @property
    def degrees(self) -> tuple[float, float] | None:
        """Latitude and longitude of the place, or None."""
        position = None if self.place is None else self.place["position"]
        return None if position is None or position["lat"] is None else (position["lat"], position["lon"])

    def values(self) -> dict[str, Any]:
        """Return the values of `COLUMNS`; None: not known."""
        values: dict[str, Any] = dict.fromkeys(COLUMNS)
        values |= {"image": self.image, "folder": self.folder, "sha256": self.sha256 or None}
        values |= {"status": self.status, "considered": self.considered, "reason": self.reason}
        if self.calibration is not None:
            values["calibration_reason"] = self.calibration["reason"]
            values["guaranteed"] = self.calibration["guaranteed"]
        if self.place is not None:
            values |= {name: self.place[name] for name in _OF_PLACE}
            values |= {name: (self.place["position"] or {}).get(name) for name in _OF_POSITION}
            values["evidence"] = " ".join(self.place["evidence"])
        return values
