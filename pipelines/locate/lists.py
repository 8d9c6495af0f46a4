"""Lists of located photos: CSV, GeoJSON (RFC 7946) and GPX 1.1."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from xml.sax.saxutils import escape

from pipelines.locate.entry import COLUMNS, Entry
from storage.errors import PlacerayError
from storage.text import plain, spreadsheet_safe

__all__ = ["UnknownListFormat", "list_bytes", "require_list_format"]

_SUFFIXES = (".csv", ".geojson", ".gpx")


class UnknownListFormat(PlacerayError, ValueError):
    """The name of a list does not say what it is to be."""

    reason = "unknown_list_format"


def require_list_format(out: str | Path) -> None:
    """Check that a list of this name can be written.

    Raises:
        UnknownListFormat: its suffix is another one.
    """
    if Path(out).suffix.lower() not in _SUFFIXES:
        endings = ", ".join(_SUFFIXES)
        raise UnknownListFormat(f"--out {out} is not the name of a list of places: end it with {endings}")


def list_bytes(entries: Sequence[Entry], out: str | Path) -> bytes:
    """Return the list in the format that its name says.

    Raises:
        UnknownListFormat: its suffix is another one.
    """
    require_list_format(out)
    make = {".csv": _csv, ".geojson": _geojson, ".gpx": _gpx}[Path(out).suffix.lower()]
    return make(entries).encode("utf-8", "replace")


def _csv(entries: Sequence[Entry]) -> str:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(COLUMNS)
    for entry in entries:
        rows.writerow([spreadsheet_safe(value) for value in entry.values().values()])
    return text.getvalue()


def _geojson(entries: Sequence[Entry]) -> str:
    features = []
    for entry in entries:
        values = entry.values()
        values["evidence"] = [] if entry.place is None else entry.place["evidence"]
        lat, lon = values.pop("lat"), values.pop("lon")
        geometry = None if lat is None else {"type": "Point", "coordinates": [lon, lat]}
        features.append({"type": "Feature", "geometry": geometry, "properties": values})
    return json.dumps({"type": "FeatureCollection", "features": features}, allow_nan=False)


def _gpx(entries: Sequence[Entry]) -> str:
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<gpx version="1.1" creator="placeray" xmlns="http://www.topografix.com/GPX/1/1">',
    ]
    for entry in entries:
        if entry.degrees is None or entry.status != "located":
            continue
        lat, lon = entry.degrees
        parts = [f"<name>{_text(entry.image)}</name>"]
        if entry.captured_at is not None:
            parts.insert(0, f"<time>{entry.captured_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}</time>")
        if entry.place is not None and entry.place["radius_m"] is not None:
            parts.append(f"<desc>within {entry.place['radius_m']:.0f} m with 90 %</desc>")
        lines.append(f'<wpt lat="{lat:.7f}" lon="{lon:.7f}">{"".join(parts)}</wpt>')
    return "\n".join([*lines, "</gpx>", ""])


def _text(name: str) -> str:
    return escape(plain(name))  # XML has no control characters
