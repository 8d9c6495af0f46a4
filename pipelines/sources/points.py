"""Positions in one value: latitude and longitude as text, and point geometries (GeoJSON, WKT, WKB)."""

from __future__ import annotations

import json
import re
import struct
from typing import Any

__all__ = ["split_geometry", "split_pair"]

MAX_LENGTH = 1_000
_WKT = re.compile(
    r"(?:SRID=4326;)?\s*POINT\s*Z?M?\s*\(\s*([^\s,()]+)\s+([^\s,()]+)(?:\s+[^\s,()]+){0,2}\s*\)",
    re.IGNORECASE,
)
_EMPTY = re.compile(r"(?:SRID=\d+;)?\s*POINT\s*Z?M?\s*EMPTY", re.IGNORECASE)
_HEX = re.compile(r"0[01][0-9a-f]{40,200}", re.IGNORECASE)
# ISO 6709, as phones write into films: +48.1368+011.5754+520/.
_ISO_6709 = re.compile(
    r"([+-]\d{2}(?:\.\d+)?)([+-]\d{3}(?:\.\d+)?)(?:[+-]\d+(?:\.\d+)?)?(?:CRS\S*)?/?", re.ASCII
)
_GEO = re.compile(r"geo:([^,;\s]+),([^,;\s]+)(?:[,;].*)?", re.IGNORECASE)  # RFC 5870
_NAMES = (("lat", "lon"), ("latitude", "longitude"), ("lat", "lng"), ("latitude", "lng"), ("y", "x"))
Pair = tuple[Any, Any]


def split_pair(value: Any) -> Pair | None:
    """Return latitude and longitude of a value such as `48.1, 11.5`; None where it is not one.

    The latitude comes first, unless letters say otherwise (`11.5E 48.1N`).
    """
    if isinstance(value, dict):
        return _named(value)
    if isinstance(value, list):
        return (value[0], value[1]) if len(value) in (2, 3) else None
    text = str(value)[: MAX_LENGTH + 1].strip()
    for shape in (_ISO_6709, _GEO):
        if match := shape.fullmatch(text):
            return match[1], match[2]
    text = text.strip("()[]")
    for separator in (r"\s*[;,/]\s+", r"\s*[;,/]\s*", r"\s+", r"(?<=[NSEW])\s*", r"(?<=\d)(?=[EW])"):
        parts = [part for part in re.split(separator, text) if part]
        if len(parts) == 2:
            first, second = parts
            named = first[-1:] in "EWew" or first[:1] in "EWew"
            return (second, first) if named else (first, second)
    return None


def split_geometry(value: Any) -> Pair | None:
    """Return (lat, lon) of a GeoJSON point or feature, its coordinates, WKT or WKB, also as hexadecimal text.

    All of these give the longitude first. An empty point gives (None, None), something else None.
    """
    if isinstance(value, bytes):
        return _split_wkb(value)
    if isinstance(value, str):
        text = value[: MAX_LENGTH + 1].strip()
        if len(text) > MAX_LENGTH:
            return None
        if wkt := _WKT.fullmatch(text):
            return wkt[2], wkt[1]
        if _EMPTY.fullmatch(text):
            return None, None
        if _HEX.fullmatch(text) and len(text) % 2 == 0:
            return _split_wkb(bytes.fromhex(text))
        try:
            value = json.loads(text.translate(str.maketrans("'()", '"[]')).replace("None", "null"))
        except (ValueError, RecursionError):
            return None
    if isinstance(value, dict) and isinstance(value.get("geometry"), dict):
        value = value["geometry"]
    if isinstance(value, dict):
        if "coordinates" not in value:
            return _named(value)
        value = value["coordinates"]
    if isinstance(value, list) and len(value) in (2, 3):
        return value[1], value[0]
    return None


def _named(value: dict[str, Any]) -> Pair | None:
    by_name = {str(name).lower(): part for name, part in value.items()}
    pairs = ((by_name[lat], by_name[lon]) for lat, lon in _NAMES if lat in by_name and lon in by_name)
    return next(pairs, None)


def _split_wkb(value: bytes) -> Pair | None:
    if len(value) < 21 or value[0] not in (0, 1):
        return None
    order = "<" if value[0] else ">"
    (kind,) = struct.unpack_from(f"{order}I", value, 1)
    start = 9 if kind & 0x20000000 else 5  # EWKB names its reference system
    # ISO adds 1000 to 3000 for a height and a measure, EWKB sets bits.
    if (kind & 0xFFFF) % 1000 != 1 or len(value) < start + 16:
        return None
    lon, lat = struct.unpack_from(f"{order}2d", value, start)
    return lat, lon
