"""GPX and GeoJSON of tracks, read back by a parser."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from typing import Any

from pipelines.tracks.files import geojson_of_track, gpx_of_track

GPX = "{http://www.topografix.com/GPX/1/1}"


def frame(name: str, lat: float | None, *, state: str = "known") -> dict[str, Any]:
    position = {"lat": lat, "lon": 16.4, "utm_e": 1.0, "utm_n": 2.0, "utm_zone": "33U"}
    return {
        "image": f"drive/{name}",
        "state": state,
        "known": state == "known",
        "position": None if state == "lost" else position,
        "radius_m": None if state == "lost" else 6.5,
        "probability": 0.9,
        "lost": 0.1,
    }


DRIVE = [
    frame("0.jpg", 48.1),
    frame("1.jpg", 48.2),
    frame("2.jpg", None, state="lost"),
    frame("<3>&\x1b.jpg", 48.3),
    frame("4.jpg", 48.4, state="unsure"),
    frame("5.jpg", 48.5),
    frame("6.jpg", 48.6),
    frame("7.jpg", None),
]


def test_gpx_has_a_segment_per_stretch() -> None:
    root = ElementTree.fromstring(gpx_of_track(DRIVE))
    segments = root.findall(f"{GPX}trk/{GPX}trkseg")
    lats = [[float(point.get("lat", "")) for point in segment] for segment in segments]
    assert lats == [[48.1, 48.2], [48.3], [48.5, 48.6]]
    assert segments[1][0].findtext(f"{GPX}name") == "<3>&\\x1b.jpg"
    assert ElementTree.fromstring(gpx_of_track([])).find(f"{GPX}trk/{GPX}trkseg") is None


def test_geojson_has_a_line_and_every_frame() -> None:
    features = json.loads(json.dumps(geojson_of_track(DRIVE)))["features"]
    assert features[0]["geometry"]["coordinates"] == [
        [[16.4, 48.1], [16.4, 48.2]],
        [[16.4, 48.5], [16.4, 48.6]],
    ]
    points = features[1:]
    assert [point["properties"]["image"] for point in points] == [each["image"] for each in DRIVE]
    assert points[2]["geometry"] is None
    assert points[7]["geometry"] is None
    assert points[4]["geometry"]["coordinates"] == [16.4, 48.4]
    assert points[4]["properties"]["state"] == "unsure"
    assert geojson_of_track([frame("0.jpg", 48.1)])["features"][0]["geometry"] is None
