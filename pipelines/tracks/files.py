"""Tracks as GPX (Topografix, GPX 1.1) and GeoJSON (RFC 7946)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from storage.text import plain

__all__ = ["geojson_of_track", "gpx_of_track"]

_GPX = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<gpx version="1.1" creator="placeray" xmlns="http://www.topografix.com/GPX/1/1">\n<trk>\n'
)


def gpx_of_track(frames: Sequence[Mapping[str, Any]]) -> str:
    """Return the known frames as one GPX track, a segment for each stretch between lost ones.

    Args:
        frames: As `placeray track --json` lists them; those without degrees are left out.
    """
    parts = [_GPX]
    for stretch in _stretches(frames):
        parts.append("<trkseg>\n")
        for frame in stretch:
            position, name = frame["position"], escape(plain(Path(frame["image"]).name))
            radius = f"<desc>within {frame['radius_m']:g} m with 90 %</desc>"
            at = f'lat="{position["lat"]:.7f}" lon="{position["lon"]:.7f}"'
            parts.append(f"<trkpt {at}><name>{name}</name>{radius}</trkpt>\n")
        parts.append("</trkseg>\n")
    return "".join([*parts, "</trk>\n</gpx>\n"])


def geojson_of_track(frames: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the track as a line, and each frame as a point with its values; a lost frame has no geometry."""
    lines = [[_lon_lat(frame) for frame in stretch] for stretch in _stretches(frames)]
    lines = [line for line in lines if len(line) > 1]
    track = {"type": "MultiLineString", "coordinates": lines} if lines else None
    features: list[dict[str, Any]] = [{"type": "Feature", "geometry": track, "properties": {"kind": "track"}}]
    for frame in frames:
        has = frame["position"] is not None and frame["position"]["lat"] is not None
        point = {"type": "Point", "coordinates": _lon_lat(frame)} if has else None
        values = {name: value for name, value in frame.items() if name != "position"}
        features.append({"type": "Feature", "geometry": point, "properties": {"kind": "frame", **values}})
    return {"type": "FeatureCollection", "features": features}


def _lon_lat(frame: Mapping[str, Any]) -> list[float]:
    return [frame["position"]["lon"], frame["position"]["lat"]]


def _stretches(frames: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return the frames with a known place and degrees, in stretches without others between."""
    stretches: list[list[Mapping[str, Any]]] = [[]]
    for frame in frames:
        if frame["known"] and frame["position"] is not None and frame["position"]["lat"] is not None:
            stretches[-1].append(frame)
        elif stretches[-1]:
            stretches.append([])
    return [stretch for stretch in stretches if stretch]
