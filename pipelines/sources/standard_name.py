"""File names of the standard layout, which carry position, heading and time."""

from __future__ import annotations

from typing import Any

from pipelines.sources.values import parse_number, parse_time, parse_zone

__all__ = ["parse_standard_name"]


def parse_standard_name(file_name: str) -> dict[str, Any]:
    """Read pose and time from a file name in the standard form of visual place recognition.

    The form is `@E@N@zone@letter@lat@lon@pano_id@tile@heading@pitch@roll@height@timestamp@note@.jpg`, where
    only E and N are required (Berton et al., "Deep Visual Geo-localization Benchmark", CVPR 2022).

    Args:
        file_name: Without its folder.

    Returns:
        Values by column of the listing, without the fields that cannot be read; empty for other names.
    """
    parts = file_name.split("@")
    if len(parts) < 4 or parts[0] != "":
        return {}
    fields = [*parts[1:], *[""] * 14]
    try:
        pose: dict[str, Any] = {
            "utm_e": parse_number("utm_e", fields[0]),
            "utm_n": parse_number("utm_n", fields[1]),
        }
    except ValueError:
        return {}
    if None in pose.values():
        return {}
    if zone := parse_zone(fields[2] + fields[3]):
        pose["utm_zone"] = zone
    for name, text in (("lat", fields[4]), ("lon", fields[5]), ("heading_deg", fields[8])):
        try:
            if (value := parse_number(name, text)) is not None:
                pose[name] = value
        except ValueError:
            continue
    if ("lat" in pose) != ("lon" in pose):
        pose.pop("lat", None)
        pose.pop("lon", None)
    try:
        if (time := parse_time(fields[12])) is not None:
            pose["captured_at"] = time
    except ValueError:
        pass
    return pose
