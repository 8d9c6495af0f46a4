"""Positions of a listing's rows: degrees or UTM, in separate columns, in one, or as a point geometry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.sources.degrees import read_degrees
from pipelines.sources.notes import Note
from pipelines.sources.numbers import is_missing, read_number, shown
from pipelines.sources.points import split_geometry, split_pair
from pipelines.sources.zones import ImpossiblePosition, Zone, place_in_zone, read_zone

__all__ = ["ImpossiblePosition", "read_position"]

NULL_ISLAND = 1e-6  # degrees: a receiver without a fix writes 0, 0
UTM_LIMITS = {"utm_e": (-1e7, 1e7), "utm_n": (-1e7, 2e7)}


def read_position(values: Mapping[str, Any], notes: list[Note]) -> dict[str, Any]:
    """Return the position of a row by column of the listing, as far as it is known.

    Args:
        values: By our column names, see `pipelines.sources.columns`.
        notes: Gets a note for each value that was dropped.

    Raises:
        ImpossiblePosition: UTM coordinates lie nowhere on earth, and there are no degrees.
    """
    position: dict[str, Any] = _degrees(values, notes)
    utm = _utm(values, notes)
    if not utm:
        return position
    zone = utm.pop("utm_zone", None)
    if isinstance(zone, Zone):
        try:
            text, northing, more = place_in_zone(zone, utm["utm_e"], utm["utm_n"], position.get("lat"))
        except ImpossiblePosition as error:
            if not position:
                raise
            notes.append(Note("bad_position", f"UTM coordinates out of range: {error}"))
            return position
        notes.extend(more)
        utm |= {"utm_n": northing, "utm_zone": text}
    return position | utm


def _degrees(values: Mapping[str, Any], notes: list[Note]) -> dict[str, float]:
    given = {axis: values.get(axis) for axis in ("lat", "lon")}
    if all(is_missing(value) for value in given.values()):
        given = _pair(values, notes)
    place = {}
    for axis, value in given.items():
        if is_missing(value):
            continue
        try:
            place[axis] = read_degrees(value, axis, values.get(f"{axis}_ref"))
        except ValueError as error:
            notes.append(Note("bad_position", f"{axis} {shown(value)} {error}"))
            return {}
    if len(place) == 1:
        notes.append(Note("bad_position", "lat and lon must be given together"))
        return {}
    if place and max(abs(place["lat"]), abs(place["lon"])) < NULL_ISLAND:
        notes.append(Note("null_island", "lat and lon are 0: the position is taken as unknown"))
        return {}
    return place


def _pair(values: Mapping[str, Any], notes: list[Note]) -> dict[str, Any]:
    """Return latitude and longitude as one column gives them."""
    for name, split in (("geometry", split_geometry), ("lat_lon", split_pair)):
        value = values.get(name)
        if is_missing(value):
            continue
        pair = split(value)
        if pair is not None:
            return {"lat": pair[0], "lon": pair[1]}
        notes.append(Note("bad_position", f"{name} {shown(value)} is not a point"))
    return {}


def _utm(values: Mapping[str, Any], notes: list[Note]) -> dict[str, Any]:
    """Return utm_e, utm_n and, where there is one, utm_zone as a `Zone`."""
    metres: dict[str, Any] = {}
    for name, (low, high) in UTM_LIMITS.items():
        value = values.get(name)
        if is_missing(value):
            continue
        try:
            metres[name] = read_number(value, thousands=True)
            if not low <= metres[name] <= high:
                raise ValueError(f"is outside {low:g} to {high:g}")
        except ValueError as error:
            notes.append(Note("bad_position", f"{name} {shown(value)} {error}"))
            return {}
    if len(metres) == 1:
        notes.append(Note("bad_position", "utm_e and utm_n must be given together"))
    if len(metres) < 2:
        return {}
    if not any(metres.values()):
        notes.append(Note("null_island", "utm_e and utm_n are 0: the position is taken as unknown"))
        return {}
    try:
        zone = read_zone(values.get("utm_zone"), values.get("utm_letter"), notes)
    except ValueError as error:
        # Metres of an unknown zone could be anywhere.
        notes.append(Note("bad_zone", f"utm_zone {shown(values.get('utm_zone'))} {error}"))
        return {}
    return metres if zone is None else metres | {"utm_zone": zone}
