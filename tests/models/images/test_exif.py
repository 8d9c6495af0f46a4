"""EXIF metadata of decoded photos."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from PIL import Image, TiffImagePlugin

from models.images import decode_image
from models.images.exif import read_facts
from tests.support.encoded_images import difference, encoded, photo_exif, scene

UNKNOWN = TiffImagePlugin.IFDRational(0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_decode_exif_orientation_returns_upright(orientation: int, kind: str) -> None:
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = scene() if orientation == 1 else scene().transpose(inverse[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(encoded(stored, kind, exif=exif, quality=95))
    assert (decoded.width, decoded.height) == (64, 48)
    assert difference(decoded, scene()) < 5


def test_decode_exif_facts_are_read() -> None:
    decoded = decode_image(encoded(scene(), "JPEG", exif=photo_exif()))
    assert decoded.lat == pytest.approx(-33.86)
    assert decoded.lon == pytest.approx(151.2)
    assert decoded.heading_deg == pytest.approx(271.5)
    assert decoded.captured_at == datetime(2024, 2, 29, 12, 30, tzinfo=UTC)
    assert decoded.captured_at is not None
    assert decoded.captured_at.tzinfo is UTC


def test_decode_gps_time_used_without_time_zone() -> None:
    exif = photo_exif(exif36881="", gps7=(7.0, 8.0, 9.0), gps29="2023:05:06")
    decoded = decode_image(encoded(scene(), "JPEG", exif=exif))
    assert decoded.captured_at == datetime(2023, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"gps2": (91.0, 0.0, 0.0)}, {"lat", "lon"}),
        ({"gps4": (1.0, 2.0)}, {"lat", "lon"}),
        ({"gps1": "Q"}, {"lat", "lon"}),
        ({"gps17": 400.0}, {"heading_deg"}),
        ({"exif36867": "yesterday"}, {"captured_at"}),
        ({"exif36881": "+99:00"}, {"captured_at"}),
        ({"exif36867": "0001:01:01 00:00:00"}, {"captured_at"}),
        ({"gps1": ""}, {"lat", "lon"}),
        ({"gps2": (48.0, 8.0, UNKNOWN)}, {"lat", "lon"}),
        ({"gps2": (UNKNOWN,) * 3}, {"lat", "lon"}),
        ({"gps17": 65535.0}, {"heading_deg"}),
        ({"gps17": UNKNOWN}, {"heading_deg"}),
        ({"exif36867": "2024:02:30 10:00:00"}, {"captured_at"}),
        ({"exif36867": "2024:02:28 26:00:00"}, {"captured_at"}),
    ],
)
def test_decode_exif_malformed_fact_ignored_alone(changes: dict[str, Any], missing: set[str]) -> None:
    decoded = decode_image(encoded(scene(), "JPEG", exif=photo_exif(**changes)))
    facts = {name: getattr(decoded, name) for name in ("lat", "lon", "heading_deg", "captured_at")}
    assert {name for name, value in facts.items() if value is None} == missing


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gps1": "n", "gps3": "East\0"}, {"signs": (1, 1)}),
        ({"gps1": "South", "gps3": "w"}, {"signs": (-1, -1)}),
        (
            {"exif36867": "2023-05-06T07:08:09Z", "exif36881": ""},
            {"captured_at": datetime(2023, 5, 6, 7, 8, 9, tzinfo=UTC)},
        ),
        (
            {"exif36867": "2023:05:06 07:08:09", "exif36881": "+02:00", "exif37521": "25"},
            {"captured_at": datetime(2023, 5, 6, 5, 8, 9, 250_000, tzinfo=UTC)},
        ),
        (
            {"exif36867": "2023:5:6 7:08", "exif36881": "+2"},
            {"captured_at": datetime(2023, 5, 6, 5, 8, tzinfo=UTC)},
        ),
        (
            {"exif36867": "2023/05/06 24:08:09", "exif36881": "", "exif36882": "UTC+02:00"},
            {"captured_at": datetime(2023, 5, 6, 22, 8, 9, tzinfo=UTC)},
        ),
        (
            {"exif36867": "    :  :     :  :  ", "exif36868": "2023:05:06 07:08:09", "exif36881": "-0130"},
            {"captured_at": datetime(2023, 5, 6, 8, 38, 9, tzinfo=UTC)},
        ),
        ({"gps2": (33.0, 51.6, UNKNOWN)}, {}),
        ({"gps2": (33.86, 0.0, 0.0)}, {}),
        (
            {"exif36881": "", "gps7": (7.0, 8.0, 9.5), "gps29": "2023-05-06"},
            {"captured_at": datetime(2023, 5, 6, 7, 8, 9, 500_000, tzinfo=UTC)},
        ),
    ],
)
def test_decode_exif_as_devices_write_it(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    decoded = decode_image(encoded(scene(), "JPEG", exif=photo_exif(**changes)))
    north, east = expected.get("signs", (-1, 1))
    assert (decoded.lat, decoded.lon) == (pytest.approx(north * 33.86), pytest.approx(east * 151.2))
    assert "captured_at" not in expected or decoded.captured_at == expected["captured_at"]


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, []),
        ({"gps2": (91.0, 0.0, 0.0), "gps17": 400.0}, ["bad_position", "bad_heading"]),
        ({"gps2": (0.0,) * 3, "gps4": (0.0,) * 3}, ["null_island"]),
        ({"gps2": (UNKNOWN,) * 3, "gps4": (UNKNOWN,) * 3, "gps17": UNKNOWN}, []),
        ({"exif36867": "yesterday"}, ["bad_time"]),
        ({"exif36867": "0000:00:00 00:00:00"}, []),
        ({"exif36881": ""}, ["unknown_time_zone"]),
        ({"exif36881": "", "gps7": (7.0, 8.0, 9.0), "gps29": "2023:05:06"}, []),
    ],
)
def test_decode_exif_names_what_it_drops(changes: dict[str, Any], reasons: list[str]) -> None:
    decoded = decode_image(encoded(scene(), "JPEG", exif=photo_exif(**changes)))
    assert [value.reason for value in decoded.dropped] == reasons


@pytest.mark.parametrize("zero", [(0.0, 0.0, 0.0), (TiffImagePlugin.IFDRational(0, 0),) * 3])
def test_decode_exif_zero_zero_is_no_position(zero: tuple[Any, ...]) -> None:
    decoded = decode_image(encoded(scene(), "JPEG", exif=photo_exif(gps2=zero, gps4=zero)))
    assert (decoded.lat, decoded.lon) == (None, None)
    assert decoded.heading_deg is not None


def test_decode_exif_garbage_ignored() -> None:
    decoded = decode_image(encoded(scene(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage"))
    assert decoded.lat is None
    assert decoded.width == 64


@pytest.mark.parametrize(
    ("tags", "lat", "heading_deg", "reasons"),
    [
        ({1: "S", 2: (-33.0, 51.0, 36.0), 17: -88.5}, -33.86, 271.5, []),
        ({2: (-33.0, 51.0, 36.0), 17: (90.0,)}, -33.86, 90.0, []),
        ({1: "N", 2: (-33.0, 51.0, 36.0), 17: -1.0}, None, None, ["bad_position", "bad_heading"]),
        ({1: "S", 2: (33.0, 51.0, -36.0), 17: -361.0}, None, None, ["bad_position", "bad_heading"]),
        ({1: "S", 2: 33.86, 17: "north"}, -33.86, None, []),
        ({1: b"S\0", 2: (33.86,)}, -33.86, None, []),
        ({1: "S", 2: "33.86"}, -33.86, None, []),
        ({1: "S"}, None, None, ["bad_position"]),
    ],
)
def test_facts_of_signed_and_single_numbers(
    tags: dict[int, Any], lat: float | None, heading_deg: float | None, reasons: list[str]
) -> None:
    """What Pillow reads of other writers, and does not write itself."""
    blocks = {0x8825: {3: "E", 4: (151.0, 12.0, 0.0), **tags}, 0x8769: {}}
    exif = SimpleNamespace(get_ifd=blocks.__getitem__)
    facts = read_facts(cast(Image.Image, SimpleNamespace(getexif=lambda: exif)))
    assert facts.lat == (None if lat is None else pytest.approx(lat))
    assert (facts.heading_deg, [value.reason for value in facts.dropped]) == (heading_deg, reasons)
