"""Values of listings and file names as people have them: small inputs and the rows that come of them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import utm

from pipelines.sources.standard_name import read_standard_name
from tests.support.listings import CONTAINERS, Write, listed, names, reasons, write_csv

JULY = datetime(2019, 7, 1, tzinfo=UTC)
TEN = datetime(2019, 7, 1, 10, tzinfo=UTC)
HALF_PAST = TEN.replace(microsecond=250_000)

TIMES_BY_MEANING: list[tuple[datetime | str | None, str]] = [
    (TEN, "1561975200|1561975200000|1561975200000000|1561975200000000000|1.5619752e9"),
    (TEN, "2019-07-01T10:00:00Z|2019-07-01T12:00:00+02:00|2019-07-01T08:00-02:00|2019-07-01T10:00"),
    (TEN, "2019-07-01 10:00:00|2019-07-01 10:00:00 UTC|2019/07/01 10:00|2019-07-01 10-00-00"),
    (TEN, "2019:07:01 10:00:00|2019:07:01 12:00:00+02:00|2019_07_01_10_00_00_000"),
    (TEN, "20190701_100000|20190701100000|201907011000|20190701T100000Z|20190701100000.0"),
    (TEN, "Mon, 01 Jul 2019 12:00:00 +0200|Mon Jul  1 10:00:00 2019|1 July 2019 10:00"),
    (
        TEN,
        "2019-07-01T10|2019-07-01 10am|2019-07-01 10:00 a. m.|Jul 1, 2019, 10:00:00\u202fAM|1 Jul 19 10:00",
    ),
    (
        TEN,
        "July 1, 2019 at 10:00 AM|2019-Jul-01 10:00|2019-182T10:00:00Z",
    ),
    (TEN, "Thu Jul 1 2019 12:00:00 GMT+0200 (CEST)|2019:07:01 10:00:00 DST"),
    (TEN, "2019-07-01 12:00 CEST|2019-07-01 12:00 Europe/Berlin|2019-07-01T12:00:00+02:00[Europe/Berlin]"),
    (
        TEN,
        "2019-07-01 03:00:00 PDT|2019-07-01T03:00:00\u221207:00|2019-07-01 12:00 UTC+2",
    ),
    (
        TEN,
        '\'2019-07-01 10:00|"2019-07-01 10:00"|\ufeff2019-07-01\xa010:00|2019年07月01日 10時00分',
    ),
    (TEN, "2019-07-01_10.00.00"),
    (TEN.replace(hour=22), "2019-07-01 10PM|2019-07-01 22:00 PM|2019/7/1 10:00:00 p.m."),
    (HALF_PAST, "1561975200,25|1561975200250.0|2019-07-01T10:00:00.250000000Z"),
    (HALF_PAST, "1561975200.25|2019-07-01T10:00:00.250Z|20190701100000250"),
    (HALF_PAST, "2019:07:01 10:00:00.25|2019-07-01 10:00:00,250"),
    (JULY, "2019-07|201907|20190701|2019-07-01|2019:07:01|20190701.0"),
    (datetime(2019, 1, 1, tzinfo=UTC), "2019"),
    (datetime(2019, 7, 25, tzinfo=UTC), "25/07/2019|07/25/2019|7/25/19|25-JUL-19|25.7.2019"),
    (None, "| |NA|N/A|null|NaN|NaT|None|-|\u2014|#N/A|<NA>|(null)|\\N|\u200b|undefined"),
    ("ambiguous_time", "01/07/2019 10:00|01.07.2019|1/7/19|19/07/25"),
    (
        "bad_time",
        "0000:00:00 00:00:00|-1|0|soon|2019-13-01|2019-02-30|99|10:00:00|" + "1" * 5_000,
    ),
    ("bad_time", "2019-400|2019-07-01 10:00 IST|2019-07-01 10:00 XYZ|2019-07-01 10:00 Mars/Base"),
    ("bad_time", "9999-12-31|9999999999999"),
]
TIMES = [(text, meaning) for meaning, texts in TIMES_BY_MEANING for text in texts.split("|")]
HEADINGS: list[tuple[str, float | str | None]] = [
    ("360", 0.0),
    ("-90", 270.0),
    ("90,5", 90.5),
    ("90°", 90.0),
    ("NE", 45.0),
    ("north-west", 315.0),
    ("359.9", 359.9),
    ("-10", 350.0),
    ("-1e-20", 0.0),
    ("3.599e2", 359.9),
    ("1.5707963267948966 rad", 90.0),
    ("271.5 T", 271.5),
    ("271.5\u00b0 (M)", 271.5),
    ("90 degrees true", 90.0),
    ("20 deg 30'", 20.5),
    ("2715/10", 271.5),
    ("\u22121\u00a0000", "bad_heading"),
    ("\u221290", 270.0),
    *((text, None) for text in ("", "NA", "nan", "null", "-", "n/a", "#N/A", "0/0", "[]", "None")),
    *(
        (text, "bad_heading")
        for text in (
            "1/0",
            "#DIV/0!",
            "True",
            "N45E",
            "361",
            "-1",
            "-1.0",
            "-999",
            "370.5",
            "65535",
            "ahead",
            "inf",
        )
    ),
]
PLACES: list[tuple[str, str, tuple[float, float] | str | None]] = [
    ("48.5", "11.5", (48.5, 11.5)),
    ("+48.5", "-11.5", (48.5, -11.5)),
    ("48,5", "11,5", (48.5, 11.5)),
    ("48.5 N", "11.5 W", (48.5, -11.5)),
    ("33.5S", "E151.25", (-33.5, 151.25)),
    ("48 deg 30' 0.00\" N", "11 deg 30' 0.00\" E", (48.5, 11.5)),
    ("48°30'0\"S", "11°30.0'W", (-48.5, -11.5)),
    ("48,30.0N", "11,30,0E", (48.5, 11.5)),
    ("48 30 0 N", "11:30:00", (48.5, 11.5)),
    ("48\u00b030\u20320\u2033N", "11\u00b030\u20190\u201dE", (48.5, 11.5)),
    ("48d30m0sN", "11d30m0sE", (48.5, 11.5)),
    ("48.5\u00a0N", "\u200e11.5", (48.5, 11.5)),
    ("'48.5", '"11.5"', (48.5, 11.5)),
    ("48/1 30/1 0/10", "[11, 30, 0/1]", (48.5, 11.5)),
    ("(48.0, 30.0, 0.0)", "11; 30; 0", (48.5, 11.5)),
    ("4830.0000N", "01130.0000 W", (48.5, -11.5)),
    ("-48.5 S", "11.5", (-48.5, 11.5)),
    ("-0.0", "1e-7", "null_island"),
    *(
        (lat, "11.5", "bad_position")
        for lat in ("0/0 0/0 0/0", "-48.5 N", "48.5 O", "485000000", "True", "48 30 75")
    ),
    ("48.5", "359.5", "bad_position"),
    ("", "", None),
    ("NA", "null", None),
    ("0", "0.0", "null_island"),
    ("0", "11.5", (0.0, 11.5)),
    *((lat, "11.5", "bad_position") for lat in ("91", "48.5 E", "x", "inf", "", "1e400", "48 75 0")),
    ("11.5", "-181", "bad_position"),
]
# Zone, what it is put to, latitude or the reason that no latitude is known.
ZONES: list[tuple[str, tuple[float, float], str | None, str | None]] = [
    *((zone, (48.14, 11.58), "32U", None) for zone in ("32U", "32u", "32 U", "032U", "32N", "32 north")),
    *(
        (zone, (48.14, 11.58), "32U", None)
        for zone in ("U32", "32-U", "32/U", "Zone 32U", "32 (N)", "32.0 N")
    ),
    *(
        (zone, (48.14, 11.58), "32U", None)
        for zone in ("WGS 84 / UTM zone 32N", "ETRS89 / UTM zone 32N", "UTM32N")
    ),
    *(
        (zone, (48.14, 11.58), "32U", None)
        for zone in ("urn:ogc:def:crs:EPSG::32632", "+proj=utm +zone=32 +datum=WGS84")
    ),
    ("32 Northern Hemisphere", (48.14, 11.58), "32U", None),
    ("WGS 84 / UTM zone 54S", (-35.68, 139.65), "54H", None),
    ("+proj=utm +zone=56 +south +datum=WGS84 +units=m", (-33.87, 151.21), "56H", None),
    ("28356", (-33.87, 151.21), "56H", None),
    *((zone, (48.14, 11.58), "32U", None) for zone in ("EPSG:32632", "32632", "25832", "UTM zone 32N")),
    *((zone, (-33.87, 151.21), "56H", None) for zone in ("56H", "56S", "56 south", "EPSG:32756", "32756.0")),
    ("34S", (-33.92, 18.42), "34H", None),
    ("18S", (-12.05, -77.04), "18L", None),
    ("17S", (-0.18, -78.47), "17M", None),
    ("17", (-0.18, -78.47), "17M", None),
    ("54S", (35.68, 139.65), "54S", None),
    ("32V", (60.39, 5.32), "32V", None),
    ("33X", (78.22, 15.65), "33X", None),
    ("32", (48.14, 11.58), "32", "unknown_hemisphere"),
    ("32.0", (48.14, 11.58), "32", "unknown_hemisphere"),
    ("19S", (-53.16, -70.91), "19S", "ambiguous_zone"),
    *((zone, (48.14, 11.58), None, "bad_zone") for zone in ("61", "0", "33.5", "33UUU", "x", "EPSG:4326")),
]


@CONTAINERS
def test_times_of_all_shapes_or_none_with_a_note(tmp_path: Path, write: Write, suffix: str) -> None:
    path = write(tmp_path / f"l.{suffix}", {"uri": names(len(TIMES)), "time": [text for text, _ in TIMES]})
    for (text, expected), row in zip(TIMES, listed(path), strict=True):
        note = [expected] if isinstance(expected, str) else []
        assert row["captured_at"] == (None if note else expected), text
        assert (row["rejected"], reasons(row)) == (None, note), text


@CONTAINERS
def test_headings_or_none_with_a_note(tmp_path: Path, write: Write, suffix: str) -> None:
    path = write(tmp_path / f"l.{suffix}", {"uri": names(len(HEADINGS)), "heading": [t for t, _ in HEADINGS]})
    for (text, expected), row in zip(HEADINGS, listed(path), strict=True):
        note = [expected] if isinstance(expected, str) else []
        assert row["heading_deg"] == (None if note else expected), text
        assert (row["rejected"], reasons(row)) == (None, note), text


@CONTAINERS
def test_degrees_or_none_with_a_note(tmp_path: Path, write: Write, suffix: str) -> None:
    lats, lons = [lat for lat, _, _ in PLACES], [lon for _, lon, _ in PLACES]
    path = write(tmp_path / f"l.{suffix}", {"uri": names(len(PLACES)), "lat": lats, "lon": lons})
    for (lat, lon, expected), row in zip(PLACES, listed(path), strict=True):
        note = [expected] if isinstance(expected, str) else []
        place = expected if isinstance(expected, tuple) else (None, None)
        assert (row["lat"], row["lon"]) == place, (lat, lon)
        assert (row["rejected"], reasons(row)) == (None, note), (lat, lon)


@pytest.mark.parametrize(("zone", "place", "stored", "note"), ZONES)
def test_utm_zone_band_hemisphere_or_code(
    tmp_path: Path, zone: str, place: tuple[float, float], stored: str | None, note: str | None
) -> None:
    east, north, _, _ = utm.from_latlon(*place)
    columns = {"uri": ["a.jpg"], "utm_e": [f"{east:.2f}"], "utm_n": [f"{north:.2f}"], "zone": [zone]}
    (row,) = listed(write_csv(tmp_path / "l.csv", columns))
    assert (row["rejected"], row["utm_zone"], reasons(row)) == (None, stored, [note] if note else [])
    if stored and note is None:
        back = utm.to_latlon(row["utm_e"], row["utm_n"], int(stored[:-1]), stored[-1])
        assert back == pytest.approx(place, abs=1e-5)


@pytest.mark.parametrize("letter", ["I", "O", "1", "+", "false", "A"])
def test_letter_that_is_none_of_utm_leaves_the_number_of_its_zone(tmp_path: Path, letter: str) -> None:
    columns: dict[str, list[Any]] = {"uri": ["0.jpg"], "utm_e": [691607], "utm_n": [5334785]}
    (row,) = listed(write_csv(tmp_path / "l.csv", columns | {"zone": [32], "band": [letter]}))
    assert (row["rejected"], row["utm_e"], row["utm_zone"]) == (None, 691607.0, "32")
    assert reasons(row) == ["bad_zone", "unknown_hemisphere"]


@CONTAINERS
@pytest.mark.parametrize(
    "value", ["5334785", "5,334,785", "5 334 785,0", "5'334'785", "5.334.785", "5334.785e3", "5334785 m"]
)
def test_metres_with_separated_thousands(tmp_path: Path, write: Write, suffix: str, value: str) -> None:
    columns = {"uri": ["0.jpg"], "easting (m)": ["691\xa0607,5"], "Northing": [value], "zone": ["32U"]}
    (row,) = listed(write(tmp_path / f"l.{suffix}", columns))
    assert (row["utm_e"], row["utm_n"], row["notes"]) == (691607.5, 5334785.0, None)


POINTS: list[tuple[str, str]] = [
    *(
        ("lat_lon", text)
        for text in ("48.5, 11.5", "48,5; 11,5", "(48.5 11.5)", "48.5N 11.5E", "11.5E 48.5N")
    ),
    *(
        ("lat_lon", text)
        for text in ("N48.5E11.5", "+48.5+011.5+520/", "geo:48.5,11.5;u=35", "{'lat': 48.5}")
    ),
    *(
        ("geometry", text)
        for text in ("POINT(11.5 48.5)", "SRID=4326;POINT Z (11.5 48.5 520)", "[11.5, 48.5]")
    ),
    ("geometry", "0101000020E610000000000000000027400000000000404840"),
    ("geometry", "{'type': 'Point', 'coordinates': (11.5, 48.5)}"),
    ("geometry", '{"type": "Feature", "geometry": {"type": "Point", "coordinates": [11.5, 48.5]}}'),
    ("geometry", "LINESTRING (1 2, 3 4)"),
    ("geometry", "POINT EMPTY"),
]


@pytest.mark.parametrize(("name", "text"), POINTS)
def test_points_in_one_column(tmp_path: Path, name: str, text: str) -> None:
    (row,) = listed(write_csv(tmp_path / "l.csv", {"uri": ["0.jpg"], name: [text]}))
    if text in ("POINT EMPTY", "LINESTRING (1 2, 3 4)", "{'lat': 48.5}"):
        assert (row["lat"], reasons(row)) == (None, [] if text.endswith("EMPTY") else ["bad_position"])
    else:
        assert (row["lat"], row["lon"], row["notes"]) == (48.5, 11.5, None)


def test_utm_beyond_the_earth_rejects_its_row_alone(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {"uri": names(3), "zone": ["17N", "33U", "17M"]}
    columns |= {"utm_e": [780723, 5, 780000], "utm_n": [9980000, 5, 9979000]}
    rows = listed(write_csv(tmp_path / "l.csv", columns))
    assert [row["rejected"] for row in rows] == ["bad_value", "bad_value", None]


@pytest.mark.parametrize(
    ("name", "zone", "note"),
    [
        ("@780723.00@9980000.00@17@S@@@0@@@@@@@@.jpg", "17M", []),
        ("@334786.00@6252000.00@56@H@@@0@@@@@@@@.jpg", "56H", []),
        ("@386000.00@3949000.00@54@S@35.68@139.65@0@@@@@@@@.jpg", "54S", []),
        ("@386000.00@3949000.00@54@S@35.68@139.65@0@@-1@@@@2019-07@@.jpg", "54S", ["bad_heading"]),
        ("@386000.00@3949000.00@99@S@@@0@@@@@@@@.jpg", None, ["bad_zone"]),
        ("@0@0@@@@@@@@@@@@@.jpg", None, []),
        ("@0@0@33@U@@@@@@@@@@@.jpg", None, ["null_island"]),
        ("@5@5@33@U@@@@@@@@@@@.jpg", "33", ["bad_position"]),
    ],
)
def test_file_names_follow_the_same_rules(name: str, zone: str | None, note: list[str]) -> None:
    notes: list[Any] = []
    pose = read_standard_name(name, notes)
    assert (pose.get("utm_zone"), [reason for reason, _ in notes]) == (zone, note)
    if "null_island" not in note:
        east, north = map(float, name.split("@")[1:3])
        assert (pose["utm_e"], pose["utm_n"]) == (east, north)
