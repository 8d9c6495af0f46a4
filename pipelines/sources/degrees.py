"""Latitudes, longitudes and headings: decimal degrees, degrees with minutes and seconds, compass points."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from pipelines.sources.numbers import MAX_NUMBER_LENGTH, is_missing, read_number, tidy

__all__ = ["read_degrees", "read_heading"]

AXES = {"lat": ("N", "S", 90.0), "lon": ("E", "W", 180.0)}
POINTS = ("N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE", "S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW")
# Exactly these mean "unknown" in exports of cameras and map services; other negative headings turn left.
UNKNOWN_HEADINGS = (-1.0, -99.0)

_PART = r"\d+(?:[.,]\d+)?"
_HALF = r"N(?:ORTH)?|S(?:OUTH)?|E(?:AST)?|W(?:EST)?"
_MINUTE, _SECOND = r"['\u2032\u2019\u00b4]", r"[\"\u2033\u201d]"
_ANGLE = re.compile(
    rf"(?P<before>{_HALF})?\s*(?P<sign>[+-])?\s*(?P<d>{_PART})(?:\s*(?:°|º|DEG(?:REES?)?|D|:|\s)\s*(?P<m>{_PART})"
    rf"(?:\s*(?:{_MINUTE}|MIN|M|:|\s)\s*(?P<s>{_PART}))?)?"
    rf"\s*(?:°|º|DEG(?:REES?)?|{_MINUTE}{{1,2}}|{_SECOND}|MIN|SEC|[DM]|(?<=\d)S(?=\s*[NSEW]))?\s*(?P<after>{_HALF})?",
    re.ASCII,
)
# XMP writes 48,8.20833N or 48,8,12N.
_XMP = re.compile(r"(\d+),(?:(\d+\.\d+)|(\d+),(\d+(?:\.\d+)?))([NSEW])", re.ASCII)
# NMEA 0183 writes degrees and minutes as 4808.2083 and 01134.5, with their half of the globe.
_NMEA = {
    axis: re.compile(rf"(\d{{{width}}})(\d\d\.\d+)", re.ASCII) for axis, width in (("lat", 2), ("lon", 3))
}
# Three numbers or ratios, as programs print the rationals of EXIF: 48/1 8/1 125/10, [48, 8, 25/2].
_THREE = re.compile(
    r"[\[(]?" + r"(?:\s*[,;]\s*|\s+)".join([r"(-?[\d.]+(?:/\d+)?)"] * 3) + r"[\])]?", re.ASCII
)
_RADIANS = re.compile(r"(.+?)\s*RAD(?:IANS?)?")
_OF_NORTH = re.compile(r"(?<=[\d°.\s])\(?(?:TRUE|T|MAG(?:NETIC)?|M)(?: NORTH)?\)?$", re.ASCII)


def read_degrees(value: Any, axis: str, reference: Any = None) -> float:
    """Return a latitude or a longitude in degrees.

    Args:
        value: A number, degrees with minutes and seconds, or text such as `48.13`, `48,13`, `48.13 N`,
            `48 deg 8' 12.5" N`, `48,8.2083N`, `4808.2083N`, `48/1 8/1 125/10`, `0.84 rad`.
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
    if abs(degrees) > limit and half and isinstance(value, str):
        nmea = _NMEA[axis].fullmatch(tidy(value).upper().strip("NSEW "))
        degrees = _sum(nmea[1], nmea[2], None) if nmea else degrees
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
    heading = _point(value) if isinstance(value, str) and len(value) < MAX_NUMBER_LENGTH else None
    if heading is None:
        heading = _read_turn(value)
    if heading in UNKNOWN_HEADINGS:
        raise ValueError('stands for "unknown"')
    if not -360 <= heading <= 360:
        raise ValueError("is outside -360 to 360")
    return heading % 360.0 % 360.0  # of -1e-20 the first is 360


def _point(text: str) -> float | None:
    point = re.sub(r"[\s_-]+", "", tidy(text).upper())
    for word in ("NORTH", "SOUTH", "EAST", "WEST"):
        point = point.replace(word, word[0])
    return POINTS.index(point) * 22.5 if point in POINTS else None


def _read_turn(value: Any) -> float:
    """Return a number of degrees, or an angle with minutes or in radians, without the north it refers to."""
    try:
        return read_number(value)
    except ValueError:
        if not isinstance(value, str) or len(value) > MAX_NUMBER_LENGTH:
            raise
    angle, half = _read_angle(_OF_NORTH.sub("", tidy(value).upper()))
    if half:
        raise ValueError("is not a number")
    return angle


def _read_angle(value: Any) -> tuple[float, str]:
    """Return degrees and their half of the globe, empty where the text does not name it."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 3:
        value = " ".join(map(str, value))
    text = tidy(str(value)[: MAX_NUMBER_LENGTH + 1]).upper()
    if len(text) > MAX_NUMBER_LENGTH:
        raise ValueError("is not an angle")
    if radians := _RADIANS.fullmatch(text):
        return math.degrees(read_number(radians[1])), ""
    if three := _THREE.fullmatch(text):
        degrees, minutes, seconds = map(read_number, three.groups())
        if not 0 <= minutes < 60 or not 0 <= seconds <= 60:
            raise ValueError("has more than 60 minutes or seconds")
        return math.copysign(abs(degrees) + minutes / 60 + seconds / 3600, degrees), ""
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
