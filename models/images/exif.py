"""EXIF metadata: orientation, position, direction and time of a photo. Malformed values are ignored."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

__all__ = ["PhotoFacts", "read_facts", "read_orientation"]


@dataclass(frozen=True)
class PhotoFacts:
    """Metadata of a photo; None where EXIF has no valid value.

    Attributes:
        lat: Latitude in degrees, -90..90.
        lon: Longitude in degrees, -180..180.
        heading_deg: Direction of view in degrees, 0 up to 360, from true or magnetic north as recorded.
        captured_at: Aware time of capture.
    """

    lat: float | None = None
    lon: float | None = None
    heading_deg: float | None = None
    captured_at: datetime | None = None


def read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation 1..8; 1 if missing or malformed."""
    try:
        orientation = image.getexif().get(Base.Orientation, 1)
    except Exception:  # a malformed block raises nearly every built-in type; then the file has no EXIF
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def read_facts(image: Image.Image) -> PhotoFacts:
    """Return position, direction and time; each is None if missing or malformed."""
    try:
        exif = image.getexif()
        gps, details = dict(exif.get_ifd(IFD.GPSInfo)), dict(exif.get_ifd(IFD.Exif))
    except Exception:  # as above
        return PhotoFacts()
    lat = _degrees(gps.get(GPS.GPSLatitude), gps.get(GPS.GPSLatitudeRef), "N", "S", 90)
    lon = _degrees(gps.get(GPS.GPSLongitude), gps.get(GPS.GPSLongitudeRef), "E", "W", 180)
    if lat is None or lon is None or (lat == 0 and lon == 0):
        lat = lon = None  # 0, 0 lies in the sea: devices write it before they have a position
    heading = _number(gps.get(GPS.GPSImgDirection))
    return PhotoFacts(
        lat=lat,
        lon=lon,
        heading_deg=heading % 360 if heading is not None and 0 <= heading <= 360 else None,
        captured_at=_local_time(details) or _gps_time(gps),
    )


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return number if math.isfinite(number) else None


def _three(values: Any) -> tuple[float, float, float] | None:
    if not isinstance(values, tuple) or len(values) != 3:
        return None
    first, second, third = (_number(value) for value in values)
    return None if first is None or second is None or third is None else (first, second, third)


def _degrees(values: Any, reference: Any, positive: str, negative: str, limit: int) -> float | None:
    """Return an angle; the reference may be a letter or a word (`n`, `South`), in text or bytes."""
    parts = _three(values)
    letter = _text(reference)[:1].upper()
    if parts is None or min(parts) < 0 or letter not in (positive, negative):
        return None
    angle = parts[0] + parts[1] / 60 + parts[2] / 3600
    if angle > limit:
        return None
    return angle if letter == positive else -angle


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return value.strip("\0 \t\r\n") if isinstance(value, str) else ""


def _local_time(details: dict[int, Any]) -> datetime | None:
    """Read the camera's clock, or None without a time zone: local time alone is ambiguous."""
    clock = re.fullmatch(
        r"(\d{4})[:/.-](\d\d)[:/.-](\d\d)[T ](\d\d):(\d\d):(\d\d)(\.\d+)?\s*(Z|[+-]\d\d:?\d\d)?",
        _text(details.get(Base.DateTimeOriginal)),
    )
    if clock is None:
        return None
    *date_and_time, fraction, zone = clock.groups()
    zone = zone or _text(details.get(Base.OffsetTimeOriginal))
    subseconds = _text(details.get(Base.SubsecTimeOriginal))
    fraction = fraction or (f".{subseconds}" if subseconds.isdecimal() else ".0")
    try:
        moment = datetime.strptime(" ".join(date_and_time) + zone, "%Y %m %d %H %M %S%z")
        return (moment + timedelta(seconds=float(fraction))).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _gps_time(gps: dict[int, Any]) -> datetime | None:
    date = re.fullmatch(r"(\d{4})[:/.-](\d\d)[:/.-](\d\d)", _text(gps.get(GPS.GPSDateStamp)))
    parts = _three(gps.get(GPS.GPSTimeStamp))
    if date is None or parts is None:
        return None
    try:
        day = datetime.strptime(" ".join(date.groups()), "%Y %m %d").replace(tzinfo=UTC)
        hour, minute, second = parts
        day = day.replace(hour=int(hour), minute=int(minute), second=int(second))
        return day + timedelta(microseconds=round(second % 1 * 1e6))
    except (ValueError, OverflowError):
        return None
