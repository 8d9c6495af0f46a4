"""EXIF metadata: orientation, position, direction and time of a photo, and the values that cannot be used."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, NamedTuple

from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

__all__ = ["Dropped", "PhotoFacts", "read_facts", "read_orientation"]

_NULL_ISLAND = 1e-6  # degrees
_UNKNOWN_HEADINGS = (-1.0, -99.0)
_MAX_SHOWN = 60
_CLOCK = re.compile(
    r"(\d{4})[:/.-](\d{1,2})[:/.-](\d{1,2})[T ]\s*(\d{1,2}):(\d\d)(?::(\d\d))?([.,]\d+)?"
    r"\s*(Z|[+-]\d\d?:?(?:\d\d)?)?"
)
_DATE = re.compile(r"(\d{4})[:/.-](\d{1,2})[:/.-](\d{1,2})")
_OFFSET = re.compile(r"(?:UTC|GMT)?\s*(?:(Z)|([+-])(\d{1,2}):?(\d\d)?)", re.IGNORECASE)
_TAKEN = (
    (Base.DateTimeOriginal, Base.SubsecTimeOriginal),
    (Base.DateTimeDigitized, Base.SubsecTimeDigitized),
)
_OFFSETS = (Base.OffsetTimeOriginal, Base.OffsetTimeDigitized, Base.OffsetTime)


class Dropped(NamedTuple):
    """A value of EXIF that is not used.

    Attributes:
        fact: What it would have given: lat, heading_deg or captured_at.
        reason: bad_position, null_island, bad_heading, bad_time or unknown_time_zone.
        message: The tag, its value and what is wrong with it.
    """

    fact: str
    reason: str
    message: str


@dataclass(frozen=True)
class PhotoFacts:
    """Metadata of a photo; None where EXIF has no valid value.

    Attributes:
        lat: Latitude in degrees, -90..90.
        lon: Longitude in degrees, -180..180.
        heading_deg: Direction of view in degrees, 0 up to 360, from true or magnetic north as recorded.
        captured_at: Aware time of capture.
        dropped: Values that are there, but cannot be used.
    """

    lat: float | None = None
    lon: float | None = None
    heading_deg: float | None = None
    captured_at: datetime | None = None
    dropped: tuple[Dropped, ...] = ()


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
    dropped: list[Dropped] = []
    lat, lon = _position(gps, dropped)
    heading = _heading(gps.get(GPS.GPSImgDirection), dropped)
    captured_at = _captured_at(details, gps, dropped)
    return PhotoFacts(lat, lon, heading, captured_at, tuple(dropped))


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return number if math.isfinite(number) else None


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, bytes) else str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def _position(gps: dict[int, Any], dropped: list[Dropped]) -> tuple[float | None, float | None]:
    angles = []
    for name, tag, reference, halves, limit in (
        ("GPSLatitude", GPS.GPSLatitude, GPS.GPSLatitudeRef, "NS", 90),
        ("GPSLongitude", GPS.GPSLongitude, GPS.GPSLongitudeRef, "EW", 180),
    ):
        parts = _parts(gps.get(tag))
        if all(part is None for part in parts):  # nothing, or 0/0 of a receiver without a fix
            continue
        try:
            angles.append(_degrees(parts, _text(gps.get(reference))[:1].upper(), halves, limit))
        except ValueError as error:
            dropped.append(Dropped("lat", "bad_position", f"EXIF {name} {_shown(gps[tag])} {error}"))
            return None, None
    if len(angles) == 1:
        dropped.append(Dropped("lat", "bad_position", "EXIF has only one of GPSLatitude and GPSLongitude"))
    if len(angles) != 2:
        return None, None
    if max(map(abs, angles)) < _NULL_ISLAND:  # it lies in the sea: devices write it before they have a fix
        dropped.append(Dropped("lat", "null_island", "EXIF has 0, 0: the position is taken as unknown"))
        return None, None
    return angles[0], angles[1]


def _parts(values: Any) -> tuple[float | None, ...]:
    """Return degrees, minutes and seconds as far as they are numbers; (None,) without any."""
    return tuple(map(_number, values)) if isinstance(values, tuple) else (_number(values),)


def _degrees(parts: tuple[float | None, ...], half: str, halves: str, limit: int) -> float:
    """Return an angle; its half of the globe may be a letter or a word, and the sign may say the same.

    Raises:
        ValueError: it cannot be read or is out of range.
    """
    known = [part for part in parts if part is not None]
    first = known[0]
    # Without seconds, minutes with a fraction are exact; whole ones are two kilometres.
    coarse = len(known) < 3 and first.is_integer() and known[-1].is_integer()
    if len(parts) not in (1, 3) or known != list(parts[: len(known)]) or (len(parts) == 3 and coarse):
        raise ValueError("is not degrees, minutes and seconds")
    if known[1:] and min(known[1:]) < 0:
        raise ValueError("has negative minutes or seconds")
    angle = sum(abs(part) / (1, 60, 3600)[power] for power, part in enumerate(known))
    if angle > limit:
        raise ValueError(f"is above {limit}")
    if half not in tuple(halves) and first >= 0:
        raise ValueError(f"is not marked as {halves[0]} or {halves[1]}")
    if half == halves[0] and first < 0:
        raise ValueError(f"is negative and {half}")
    return -angle if half == halves[1] or first < 0 else angle


def _heading(value: Any, dropped: list[Dropped]) -> float | None:
    heading = _number(value[0] if isinstance(value, tuple) and len(value) == 1 else value)
    if heading is None:
        return None
    if heading in _UNKNOWN_HEADINGS or not -360 <= heading <= 360:
        message = f"EXIF GPSImgDirection {_shown(value)} is not a direction"
        dropped.append(Dropped("heading_deg", "bad_heading", message))
        return None
    return heading % 360 % 360


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return value.strip("\0 \t\r\n") if isinstance(value, str) else ""


def _captured_at(details: dict[int, Any], gps: dict[int, Any], dropped: list[Dropped]) -> datetime | None:
    """Return the camera's time, that of the GPS receiver where the camera names no time zone, or None."""
    reason, message = "", ""
    for tag, subseconds in _TAKEN:
        text = _text(details.get(tag))
        if not text.strip(" :0/.-"):  # blanks and zeros stand for unknown
            continue
        try:
            return _local_time(
                text, _text(details.get(subseconds)), [_text(details.get(tag)) for tag in _OFFSETS]
            )
        except ValueError as error:
            reason, message = "bad_time", f"EXIF {tag.name} {_shown(text)} {error}"
        except LookupError:
            reason, message = "unknown_time_zone", f"EXIF {tag.name} {_shown(text)} has no UTC offset"
            break
    moment = _gps_time(gps)
    if moment is None and reason:
        dropped.append(Dropped("captured_at", reason, message))
    return moment


def _local_time(text: str, subseconds: str, offsets: list[str]) -> datetime:
    """Read the camera's clock.

    Raises:
        LookupError: there is no time zone; local time alone is ambiguous.
        ValueError: it is not a time.
    """
    clock = _CLOCK.fullmatch(text)
    if clock is None:
        raise ValueError("is not a time")
    *date_and_time, fraction, zone = clock.groups()
    fraction = (fraction or f".{subseconds if subseconds.isdecimal() else 0}").replace(",", ".")
    year, month, day, hour, minute, second = (int(number or 0) for number in date_and_time)
    named = [zone, *filter(None, offsets)] if zone else [*filter(None, offsets)]
    if not named:
        datetime(year, month, day, hour % 24, minute, min(second, 59))  # raises where it is not a time
        raise LookupError
    try:
        return _moment((year, month, day), hour, minute, second + float(fraction), _zone(named[0]))
    except OverflowError:
        raise ValueError("is not a time") from None


def _zone(text: str) -> timezone:
    match = _OFFSET.fullmatch(text)
    if not match or int(match[3] or 0) > 14 or int(match[4] or 0) > 59:
        raise ValueError(f"has the UTC offset {_shown(text)}")
    offset = timedelta(hours=int(match[3] or 0), minutes=int(match[4] or 0))
    return timezone(-offset if match[2] == "-" else offset)


def _moment(day: tuple[int, int, int], hour: float, minute: float, second: float, zone: timezone) -> datetime:
    """Return a time in UTC; some devices count on to 24:05 and 59:60.

    Raises:
        ValueError: it is none.
        OverflowError: it is beyond the years of a calendar.
    """
    if not (0 <= hour < 25 and 0 <= minute < 60 and 0 <= second < 61):
        raise ValueError("is not a time")
    midnight = datetime(*day, tzinfo=zone)
    passed = timedelta(hours=hour, minutes=minute, microseconds=round(second * 1e6))
    return (midnight + passed).astimezone(UTC)


def _gps_time(gps: dict[int, Any]) -> datetime | None:
    date = _DATE.fullmatch(_text(gps.get(GPS.GPSDateStamp)))
    parts = _parts(gps.get(GPS.GPSTimeStamp))
    hour, minute, second = parts if len(parts) == 3 else (None, None, None)
    if date is None or hour is None or minute is None or second is None:
        return None
    try:
        year, month, day = map(int, date.groups())
        return _moment((year, month, day), hour, minute, second, UTC)
    except (ValueError, OverflowError):
        return None
