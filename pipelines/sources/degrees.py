"""Latitudes, longitudes and headings: decimal degrees, degrees with minutes and seconds, compass points."""

from __future__ import annotations

import re
from typing import Any

from pipelines.sources.numbers import MAX_NUMBER_LENGTH, is_missing, read_number

__all__ = ["read_degrees", "read_heading"]

AXES = {"lat": ("N", "S", 90.0), "lon": ("E", "W", 180.0)}
POINTS = ("N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE", "S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW")
# Exactly these mean "unknown" in exports of cameras and map services; other negative headings turn left.
UNKNOWN_HEADINGS = (-1.0, -99.0)

_PART = r"\d+(?:[.,]\d+)?"
_HALF = r"N(?:ORTH)?|S(?:OUTH)?|E(?:AST)?|W(?:EST)?"
_ANGLE = re.compile(
    rf"(?P<before>{_HALF})?\s*(?P<sign>[+-])?\s*(?P<d>{_PART})"
    rf"(?:\s*(?:°|º|DEG(?:REES?)?|D|:|\s)\s*(?P<m>{_PART})(?:\s*(?:['\u2032\u2019]|MIN|M|:|\s)\s*(?P<s>{_PART}))?)?"
    rf"\s*(?:°|º|DEG(?:REES?)?|['\u2032\u2019]{{1,2}}|[\"\u2033\u201d]|MIN|SEC)?\s*(?P<after>{_HALF})?",
    re.ASCII,
)
# XMP writes 48,8.20833N or 48,8,12N.
_XMP = re.compile(r"(\d+),(?:(\d+\.\d+)|(\d+),(\d+(?:\.\d+)?))([NSEW])", re.ASCII)


def read_degrees(value: Any, axis: str, reference: Any = None) -> float:
    """Return a latitude or a longitude in degrees.

    Args:
        value: A number, or text such as `48.13`, `48,13`, `48.13 N`, `48 deg 8' 12.5" N`, `48,8.2083N`.
        axis: `lat` or `lon`.
        reference: N, S, E or W from a column of its own, for values without a sign.

    Raises:
        ValueError: it cannot be read, or lies outside of -90 to 90 or -180 to 180.
    """
    positive, negative, limit = AXES[axis]
    half = "" if is_missing(reference) else str(reference).strip()[:1].upper()
    try:
        degrees = read_number(value)
    except ValueError:
        degrees, named = _read_angle(value)
        half = named or half
    if half and half not in (positive, negative):
        raise ValueError(f"is on the half {half}, not {positive} or {negative}")
    if half == positive and degrees < 0:
        raise ValueError(f"is negative and {positive}")
    if half == negative:
        degrees = -abs(degrees)
    if not -limit <= degrees <= limit:
        raise ValueError(f"is outside {-limit:g} to {limit:g}")
    return degrees


def read_heading(value: Any) -> float:
    """Return a heading in degrees, 0 up to 360, from a number in -360..360 or one of 16 compass points.

    Raises:
        ValueError: it cannot be read, is out of range, or means "unknown" (-1, -99).
    """
    if isinstance(value, str):
        point = re.sub(r"[\s_-]+", "", value.upper()) if len(value) < MAX_NUMBER_LENGTH else ""
        for word in ("NORTH", "SOUTH", "EAST", "WEST"):
            point = point.replace(word, word[0])
        if point in POINTS:
            return POINTS.index(point) * 22.5
    heading = read_number(value)
    if heading in UNKNOWN_HEADINGS:
        raise ValueError('stands for "unknown"')
    if not -360 <= heading <= 360:
        raise ValueError("is outside -360 to 360")
    return heading % 360.0


def _read_angle(value: Any) -> tuple[float, str]:
    """Return degrees and their half of the globe, empty where the text does not name it."""
    text = str(value).strip().upper().replace("\u2212", "-")
    if len(text) > MAX_NUMBER_LENGTH:
        raise ValueError("is not an angle")
    if xmp := _XMP.fullmatch(text):
        return _sum(xmp[1], xmp[2] or xmp[3], xmp[4]), xmp[5]
    angle = _ANGLE.fullmatch(text)
    if not angle or (angle["before"] and angle["after"]):
        raise ValueError("is not an angle")
    degrees = _sum(angle["d"], angle["m"], angle["s"])
    half = (angle["before"] or angle["after"] or "")[:1]
    return (-degrees if angle["sign"] == "-" else degrees), half


def _sum(degrees: str, minutes: str | None, seconds: str | None) -> float:
    small = [float((part or "0").replace(",", ".")) for part in (minutes, seconds)]
    if max(small) > 60:
        raise ValueError("has more than 60 minutes or seconds")
    return float(degrees.replace(",", ".")) + small[0] / 60 + small[1] / 3600
