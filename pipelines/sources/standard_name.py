"""File names of the standard layout, which carry position, heading and time."""

from __future__ import annotations

from typing import Any

from pipelines.sources.facts import read_captured_at, read_heading_deg
from pipelines.sources.notes import Note
from pipelines.sources.numbers import read_number, shown
from pipelines.sources.positions import ImpossiblePosition, read_position
from pipelines.sources.zones import read_zone

__all__ = ["parse_standard_name", "read_standard_name"]

UTM_LIMIT_M = 2e7


def parse_standard_name(file_name: str) -> dict[str, Any]:
    """Read pose and time from a file name in the standard form of visual place recognition.

    The form is `@E@N@zone@letter@lat@lon@pano_id@tile@heading@pitch@roll@height@timestamp@note@.jpg`, where
    only E and N are required (Berton et al., "Deep Visual Geo-localization Benchmark", CVPR 2022).

    Args:
        file_name: Without its folder.

    Returns:
        Values by column of the listing, without the fields that cannot be read; empty for other names.
    """
    return read_standard_name(file_name, [])


def read_standard_name(file_name: str, notes: list[Note]) -> dict[str, Any]:
    """As `parse_standard_name`, with a note for each field that was dropped."""
    parts = file_name.split("@")
    if len(parts) < 4 or (parts[0] != "" and not _is_placed(parts)):
        return {}
    fields = [*parts[1:-1], *[""] * 14]
    try:
        metres = [read_number(text) for text in fields[:2]]
    except ValueError:
        return {}
    if max(map(abs, metres)) > UTM_LIMIT_M:
        return {}
    values = dict(zip(("utm_e", "utm_n", "utm_zone", "utm_letter", "lat", "lon"), fields, strict=False))
    zone = None
    try:
        zone = read_zone(values["utm_zone"], values["utm_letter"], [])
    except ValueError as error:  # metres alone are enough within one city
        notes.append(Note("bad_zone", f"utm_zone {shown(values['utm_zone'])} {error}"))
        values["utm_zone"] = ""
    # Data sets also have metres of a plane of their own, which may begin at 0 and need not lie in a zone.
    pose: dict[str, Any] = {"utm_e": metres[0], "utm_n": metres[1]}
    if zone is not None or any(metres):
        try:
            pose = read_position(values, notes)
        except ImpossiblePosition as error:
            notes.append(Note("bad_position", f"{error}: the metres are kept, without degrees"))
            pose |= {"utm_zone": str(zone.number)} if zone else {}
    heading = read_heading_deg(fields[8], notes)
    captured_at = read_captured_at({"captured_at": fields[12]}, notes)
    facts = {"heading_deg": heading, "captured_at": captured_at}
    return pose | {name: value for name, value in facts.items() if value is not None}


def _is_placed(parts: list[str]) -> bool:
    """Return whether a zone, or latitude and longitude, stand where the form has them."""
    zone, letter, *degrees = [*parts[3:-1], *[""] * 4][:4]
    try:
        return read_zone(zone, letter) is not None or all(abs(read_number(text)) <= 180 for text in degrees)
    except ValueError:
        return False
