"""Polygons from GeoJSON (RFC 7946) that anybody may have written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storage.json_values import finite_number, parse_object
from storage.regular_files import open_regular
from storage.search.filters.errors import BadFilter
from storage.search.filters.polygon import MAX_VERTICES, Inside, Polygon, Ring

__all__ = ["MAX_GEOJSON_BYTES", "inside_geojson", "read_geojson"]

MAX_GEOJSON_BYTES = 4 << 20
_MAX_DEPTH = 8
_MAX_PARTS = 10_000
_DEGREES = ("crs84", "4326")  # older GeoJSON names its system


def read_geojson(path: str | Path) -> str:
    """Return the text of a GeoJSON file.

    Raises:
        BadFilter: it cannot be read, is too large, or is not text.
    """
    try:
        with os.fdopen(open_regular(os.path.realpath(path)), "rb") as file:
            data = file.read(MAX_GEOJSON_BYTES + 1)
        if len(data) > MAX_GEOJSON_BYTES:
            raise BadFilter(
                f"{path} has more than {MAX_GEOJSON_BYTES} bytes: keep its polygons only, or simplify them"
            )
        return data.decode("utf-8-sig")
    except OSError as error:
        raise BadFilter(f"{path} cannot be read ({error.strerror}): give a GeoJSON file") from None
    except UnicodeDecodeError:
        raise BadFilter(f"{path} is not text: give a GeoJSON file") from None


def inside_geojson(text: str) -> Inside:
    """Return the filter of the polygons in GeoJSON: a geometry, a feature, or a collection of them.

    Raises:
        BadFilter: it is not GeoJSON, has something else than polygons, or what `Inside` refuses.
    """
    try:
        values = parse_object(text)
        polygons = tuple(_polygons(values, 0))
    except BadFilter:
        raise
    except ValueError as error:
        raise BadFilter(f"the GeoJSON cannot be used ({error}): give a Polygon or MultiPolygon") from None
    return Inside(polygons)


def _polygons(values: object, depth: int) -> Iterator[Polygon]:
    if values is None:  # a feature without a geometry
        return
    if not isinstance(values, dict) or depth > _MAX_DEPTH:
        raise ValueError("a geometry is not an object" if depth <= _MAX_DEPTH else "nested too deeply")
    _require_degrees(values)
    kind = values.get("type")
    if kind == "FeatureCollection":
        for feature in _parts(values.get("features")):
            yield from _polygons(feature, depth + 1)
    elif kind == "Feature":
        yield from _polygons(values.get("geometry"), depth + 1)
    elif kind == "GeometryCollection":
        for geometry in _parts(values.get("geometries")):
            yield from _polygons(geometry, depth + 1)
    elif kind == "Polygon":
        yield _polygon(values.get("coordinates"))
    elif kind == "MultiPolygon":
        yield from map(_polygon, _parts(values.get("coordinates")))
    else:
        raise ValueError(f"its type is {str(kind)[:40]!r}")


def _polygon(values: object) -> Polygon:
    return tuple(_ring(ring) for ring in _parts(values))


def _ring(values: object) -> Ring:
    return tuple(_corner(corner) for corner in _parts(values, MAX_VERTICES))


def _corner(values: object) -> tuple[float, float]:
    if not isinstance(values, list) or not 2 <= len(values) <= 4:
        raise ValueError("a corner is not a longitude and a latitude")
    lon, lat = (float(finite_number(value, -1e9, 1e9)) for value in values[:2])
    return lon, lat


def _parts(values: object, limit: int = _MAX_PARTS) -> list[Any]:
    if not isinstance(values, list):
        raise ValueError("coordinates or parts are not a list")
    if len(values) > limit:
        raise ValueError(f"a list has {len(values)} parts, {limit} are read at most")
    return values


def _require_degrees(values: dict[str, Any]) -> None:
    system = values.get("crs")
    if isinstance(system, dict):
        properties = system.get("properties")
        name = str(properties.get("name") if isinstance(properties, dict) else "").lower()[:200]
        if name and not name.rstrip("/").endswith(_DEGREES):
            raise ValueError(f"its coordinates are in {name[:60]!r}, not in degrees of WGS84")
