"""Listings and file names as people have them: small inputs and the rows that come of them."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import utm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.sources import SourceError, list_source, listing_notes, split_notes
from pipelines.sources.columns import COLUMN_NAMES
from pipelines.sources.standard_name import read_standard_name
from storage.errors import PlacerayError

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
    (HALF_PAST, "1561975200.25|2019-07-01T10:00:00.250Z|20190701100000250"),
    (HALF_PAST, "2019:07:01 10:00:00.25|2019-07-01 10:00:00,250"),
    (JULY, "2019-07|201907|20190701|2019-07-01|2019:07:01|20190701.0"),
    (datetime(2019, 1, 1, tzinfo=UTC), "2019"),
    (datetime(2019, 7, 25, tzinfo=UTC), "25/07/2019|07/25/2019"),
    (None, "| |NA|N/A|null|NaN|NaT"),
    ("ambiguous_time", "01/07/2019 10:00|01.07.2019"),
    ("bad_time", "0000:00:00 00:00:00|-1|0|soon|2019-13-01|2019-02-30|99|10:00:00|" + "1" * 5_000),
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
    *((text, None) for text in ("", "NA", "nan", "null")),
    *((text, "bad_heading") for text in ("-1", "-1.0", "-999", "370.5", "65535", "ahead", "inf")),
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
    *((zone, (48.14, 11.58), None, "bad_zone") for zone in ("61", "32I", "x", "EPSG:4326")),
]


def listed(path: Path, **options: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = list_source(path, **options).to_pylist()
    return rows


def reasons(row: dict[str, Any]) -> list[str]:
    return [note.reason for note in split_notes(row["notes"])]


def write_csv(path: Path, columns: dict[str, list[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(zip(*columns.values(), strict=True))
    return path


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def names(count: int) -> list[str]:
    return [f"{i}.jpg" for i in range(count)]


CONTAINERS = pytest.mark.parametrize(
    ("write", "suffix"), [(write_csv, "csv"), (write_parquet, "parquet")], ids=["csv", "parquet"]
)
Write = Callable[[Path, dict[str, list[Any]]], Path]


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


MOMENTS = pa.array([JULY, JULY, TEN, TEN, TEN, None], pa.timestamp("us", "UTC"))
NUMBERS = [201907, 20190701, 20190701100000, 1561975200, 1561975200000]
DIGITS = [*map(str, NUMBERS), "NA"]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([*NUMBERS, None], pa.int64()),
        pa.array([*NUMBERS, None], pa.uint64()),
        pa.array([*map(float, NUMBERS), float("nan")]),
        pa.array([*map(Decimal, NUMBERS), None]),
        MOMENTS.cast(pa.timestamp("ns", "Europe/Berlin")),
        MOMENTS.cast(pa.timestamp("s")),
        MOMENTS.cast(pa.timestamp("ms")),
        MOMENTS.cast(pa.timestamp("us")),
        MOMENTS.cast(pa.timestamp("ns")),
        pa.array(DIGITS),
        pa.array(DIGITS).dictionary_encode(),
        pa.array(DIGITS, pa.large_string()),
        pa.array([text.encode() for text in DIGITS]),
    ],
    ids=lambda values: str(values.type)[:30],
)
def test_parquet_times_of_any_type(tmp_path: Path, values: pa.Array) -> None:
    pq.write_table(pa.table({"path": names(6), "captured_at": values}), tmp_path / "l.parquet")
    rows = listed(tmp_path / "l.parquet")
    assert [row["captured_at"] for row in rows] == [JULY, JULY, TEN, TEN, TEN, None]
    assert [row["notes"] for row in rows] == [None] * 6


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([date(2019, 7, 1)], pa.date32()), JULY),
        (pa.array([date(2019, 7, 1)], pa.date64()), JULY),
        (pa.array([2**62], pa.int64()).cast(pa.timestamp("ms")), None),
        (pa.array([-(2**31)], pa.int32()).cast(pa.date32()), None),
        (pa.array([[1, 2]]), None),
        (pa.array([True]), None),
        (pa.array([2**62], pa.duration("s")), None),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_parquet_odd_types_cost_no_photo(tmp_path: Path, values: pa.Array, expected: datetime | None) -> None:
    pq.write_table(
        pa.table({"path": ["a.jpg"], "captured_at": values, "lat": [48.5], "lon": [11.5]}), tmp_path / "l.pq"
    )
    (row,) = listed(tmp_path / "l.pq")
    assert (row["captured_at"], row["lat"], row["rejected"]) == (expected, 48.5, None)
    assert reasons(row) == ([] if expected else ["bad_time"])


@pytest.mark.parametrize("kind", ["float", "double", "decimal", "string", "large_string"])
def test_parquet_numbers_of_any_type(tmp_path: Path, kind: str) -> None:
    types = {"decimal": pa.decimal128(10, 4)}
    values = pa.array(["48.5", None]).cast(types.get(kind) or pa.type_for_alias(kind))
    table = pa.table({"path": names(2), "lat": values, "lon": values, "heading": values})
    pq.write_table(table, tmp_path / "l.parquet")
    rows = [(row["lat"], row["heading_deg"], row["notes"]) for row in listed(tmp_path / "l.parquet")]
    assert rows == [(48.5, 48.5, None), (None, None, None)]


@pytest.mark.parametrize(
    "ids",
    [
        pa.array(["NA", "null", "nan", "N/A", "NULL", "007", "1e5", "NB"]),
        pa.array(["NA", "null", "nan", "N/A", "NULL", "007", "1e5", "NB"]).dictionary_encode(),
        pa.array(["NA", "null", "nan", "N/A", "NULL", "007", "1e5", "NB"], pa.large_string()),
    ],
    ids=["string", "dictionary", "large"],
)
def test_ids_stay_text(tmp_path: Path, ids: pa.Array) -> None:
    pq.write_table(pa.table({"path": names(8), "id": ids}), tmp_path / "l.parquet")
    table = write_csv(tmp_path / "l.csv", {"path": names(8), "id": ids.to_pylist()})
    for path in (table, tmp_path / "l.parquet"):
        assert [row["image_id"] for row in listed(path)] == ids.to_pylist()


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([7, None]), ["7", "1.jpg"]),
        (pa.array([float("nan"), None]), ["0.jpg", "1.jpg"]),
        (pa.array([" ", ""]), ["0.jpg", "1.jpg"]),
    ],
)
def test_missing_ids_are_the_path(tmp_path: Path, ids: pa.Array, expected: list[str]) -> None:
    pq.write_table(pa.table({"path": names(2), "id": ids}), tmp_path / "l.parquet")
    assert [row["image_id"] for row in listed(tmp_path / "l.parquet")] == expected


TEXT = "path,lat,lon,street\n0.jpg,48.5,11.5,Münchner Straße\n1.jpg,48.6,11.6,x\n"


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("latin-1"),
        TEXT.replace("x", "“x” €").encode("cp1252"),
        TEXT.encode("latin-1").replace(b"x", b"\x81"),
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
        TEXT.replace(",", ";").encode(),
        TEXT.replace(",", "\t").encode(),
        TEXT.replace(",", "|").encode(),
        TEXT.replace(",", ";").replace(".5", ",5").replace(".6", ",6").encode(),
        TEXT.replace(",", ", ").encode(),
        ("sep=;\n" + TEXT.replace(",", ";")).encode(),
        ("\n\n" + TEXT.replace("\n", "\n\n") + ",,,\n").encode(),
        TEXT.replace("path,lat,lon", '"Path"," Latitude ","Longitude (deg)"').encode(),
        TEXT.replace("48.5,11.5", '"48,5","11,5"').encode(),
        TEXT.replace("x\n", '"a ""b"",\nlooking north"\n').encode(),
        TEXT.replace("\n1.jpg", ",,\n1.jpg").encode(),
        TEXT.replace("Straße", '5" pipe').encode(),
        TEXT.replace("Münchner", '"5" pipe').encode(),
        TEXT.replace("Münchner", '"never closed').encode(),
        TEXT.replace(",x\n", ',"never closed\n').encode(),
        TEXT.replace(",x\n", "\n").encode(),
    ],
)
def test_csv_of_any_separator_quoting_and_encoding(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "l.csv").write_bytes(data)
    rows = listed(tmp_path / "l.csv")
    places = [(row["image_id"], row["lat"], row["lon"]) for row in rows]
    assert places == [("0.jpg", 48.5, 11.5), ("1.jpg", 48.6, 11.6)]
    assert [row["rejected"] for row in rows] == [None, None]


def test_csv_large_with_line_breaks_in_quotes(tmp_path: Path) -> None:
    count = 12_000
    captions = [f"corner shop,\nlooking north, {'brick facade ' * 8}\nframe {i}" for i in range(count)]
    columns = {"path": names(count), "lat": [48.5] * count, "lon": [11.5] * count, "caption": captions}
    path = write_csv(tmp_path / "l.csv", columns)
    rows = listed(path)
    assert len(rows) == count
    assert {(row["lat"], row["rejected"]) for row in rows} == {(48.5, None)}


def test_csv_column_of_paths_alone_may_contain_separators(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("uri\nsemi;colon,comma.jpg\n")
    assert [row["image_id"] for row in listed(tmp_path / "l.csv")] == ["semi;colon,comma.jpg"]


EXIFTOOL_DEGREES = {"GPSLatitude": "48 deg 30' 0.00\" N", "GPSLongitude": "11 deg 30' 0.00\" E"}
EXIF_TIME = {"DateTimeOriginal": "2019:07:01 12:00:00", "OffsetTimeOriginal": "+02:00"}
REFS = {"GPSLatitudeRef": "North", "GPSLongitudeRef": "E"}
POINT = '{"type": "Point", "coordinates": [11.5, 48.5]}'


@pytest.mark.parametrize(
    "columns",
    [
        {"SourceFile": "./0.jpg", **EXIFTOOL_DEGREES, "GPSImgDirection": "20.5", **EXIF_TIME},
        {
            "File:SourceFile": "0.jpg",
            "GPSLatitude": "48.5",
            "GPSLongitude": "11.5",
            **REFS,
            "yaw (deg)": "20.5",
        },
        {"image_path": "0.jpg", "computed_geometry": POINT, "compass_angle": "20.5"},
        {"image": "0.jpg", "computed_geometry.coordinates": "[11.5, 48.5]", "computed_compass_angle": "20.5"},
        {"filepath": "0.jpg", "geometry": "POINT (11.5 48.5)", "Bearing": "20.5", "Timestamp": "1561975200"},
        {"img": "0.jpg", "GPSPosition": "48.5 N, 11.5 E", "Azimuth": "20.5", "DateTime": "2019-07-01 10:00"},
        {
            "File_Name": "0.jpg",
            "Latitude": "48.5",
            "Lng": "11.5",
            "Direction": "20.5",
            "CreateDate": "201907",
        },
        {"IMAGE": "0.jpg", "LAT": "48.5", "LONG": "11.5", "Camera Heading": "20.5", "date": "2019-07-01"},
    ],
)
def test_columns_of_other_programs(tmp_path: Path, columns: dict[str, str]) -> None:
    values: dict[str, list[Any]] = {name: [value] for name, value in columns.items()}
    for path in (write_csv(tmp_path / "l.csv", values), write_parquet(tmp_path / "l.parquet", values)):
        (row,) = listed(path)
        assert (row["image_id"], row["lat"], row["lon"], row["heading_deg"]) == ("0.jpg", 48.5, 11.5, 20.5)
        assert row["notes"] is None
        timed = any("date" in name.lower() or "stamp" in name.lower() for name in columns)
        assert (row["captured_at"] in (JULY, TEN)) == timed


@pytest.mark.parametrize(
    "columns",
    [
        {"date": "2019-07-01", "time": "10:00:00"},
        {"date": "20190701", "time": "12:00:00+02:00"},
        {"DateTimeOriginal": "2019:07:01 12:00:00", "OffsetTimeOriginal": "+02:00"},
        {"DateTimeOriginal": "2019:07:01 12:00:00+02:00", "OffsetTimeOriginal": "+05:00"},
    ],
)
def test_times_in_two_columns(tmp_path: Path, columns: dict[str, str]) -> None:
    (row,) = listed(
        write_csv(tmp_path / "l.csv", {"path": ["0.jpg"], **{k: [v] for k, v in columns.items()}})
    )
    assert (row["captured_at"], row["notes"]) == (TEN, None)


@pytest.mark.parametrize(
    "geometry",
    [
        pa.array([{"type": "Point", "coordinates": [11.5, 48.5]}]),
        pa.array([[11.5, 48.5]]),
        pa.array([struct.pack("<BIdd", 1, 1, 11.5, 48.5)]),
    ],
    ids=["struct", "list", "wkb"],
)
def test_parquet_points(tmp_path: Path, geometry: pa.Array) -> None:
    pq.write_table(pa.table({"path": ["0.jpg"], "geometry": geometry}), tmp_path / "l.parquet")
    (row,) = listed(tmp_path / "l.parquet")
    assert (row["lat"], row["lon"]) == (48.5, 11.5)


def test_second_column_of_the_same_meaning_is_noted(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "l.csv", {"path": ["0.jpg"], "compass_angle": [20], "heading": [10]})
    listing = list_source(path)
    assert listing["heading_deg"].to_pylist() == [10.0]
    assert [note.reason for note in listing_notes(listing)] == ["unused_column"]
    assert "compass_angle" in listing_notes(listing)[0].message


def test_tags_become_a_list(tmp_path: Path) -> None:
    texts = ["night; rain", '["night", "rain"]', "night,rain,night", "", "['night', 'rain']"]
    path = write_csv(tmp_path / "l.csv", {"path": names(5), "tags": texts})
    expected = [["night", "rain"]] * 3 + [None, ["night", "rain"]]
    assert [row["tags"] and json.loads(row["tags"]) for row in listed(path)] == expected
    pq.write_table(pa.table({"path": names(2), "tags": [["night", "rain"], None]}), tmp_path / "l.parquet")
    rows = listed(tmp_path / "l.parquet")
    assert [row["tags"] for row in rows] == ['["night", "rain"]', None]


def test_paths_as_uris_and_with_separators_of_windows(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for name in ("a b.jpg", "sub/c.jpg", "back\\slash.jpg"):
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_bytes(b"x")
    uris = [f"file://{root}/a%20b.jpg", f"file://localhost{root}/sub/c.jpg", "sub\\c.jpg"]
    uris += ["file://./sub/c.jpg"]
    uris += ["back\\slash.jpg", f"{root}/sub/c.jpg"]
    ids = ["1", "2", "3", "4", "5", "6"]
    rows = listed(write_csv(tmp_path / "l.csv", {"uri": uris, "id": ids}), root=root)
    wanted = ["a b.jpg", "sub/c.jpg", "sub/c.jpg", "sub/c.jpg", "back\\slash.jpg", "sub/c.jpg"]
    assert [row["uri"] for row in rows] == [str(root / name) for name in wanted]
    (row,) = listed(write_csv(root / "l.csv", {"uri": [f"{tmp_path}/elsewhere/c.jpg"]}))
    assert row["rejected"] == "outside_root"
    assert "--root" in row["message"]


def test_parquet_that_expands_is_refused(tmp_path: Path) -> None:
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 3_000, pa.int32()), pa.array(["x" * (1 << 20)]))
    many = pa.DictionaryArray.from_arrays(pa.array([0] * 3_000_000, pa.int32()), pa.array(["x.jpg"]))
    wide = pa.DictionaryArray.from_arrays(pa.array([0] * 90_000, pa.int32()), pa.array(["x" * 5_000]))
    for array in (long, many, wide):
        pq.write_table(pa.table({"uri": array}), tmp_path / "l.parquet", compression="zstd")
        assert (tmp_path / "l.parquet").stat().st_size < 10_000
        with pytest.raises(SourceError, match=r"expand|at most"):
            list_source(tmp_path / "l.parquet")


def test_parquet_of_long_texts_is_refused_by_its_metadata(tmp_path: Path) -> None:
    table = pa.table({"uri": pa.array(["x" * 60_000] * 2_000)})
    pq.write_table(table, tmp_path / "l.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(SourceError, match="bytes expand to"):
        list_source(tmp_path / "l.parquet")


def test_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "l.csv")
    with pytest.raises(SourceError, match="regular file"):
        list_source(tmp_path / "l.csv")


def test_csv_with_an_endless_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text('path,lat\n0.jpg,"' + "x" * (17 << 20) + '"\n')
    with pytest.raises(SourceError, match="line 2"):
        list_source(tmp_path / "l.csv")


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x1f\x8b\x08", b"PAR1"])
def test_other_files_named_csv_are_named(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "l.csv").write_bytes(start + b"\0" * 100)
    with pytest.raises(SourceError):
        list_source(tmp_path / "l.csv")


SHAPES = [text for text, _ in TIMES] + [text for text, _ in HEADINGS] + ["33S", "1e309", '"', "48,5"]
ODD = st.one_of(
    st.text(max_size=30),
    st.sampled_from(SHAPES),
    st.floats().map(str),
    st.integers(-(10**20), 10**20).map(str),
)
NAMES = [alias for aliases in COLUMN_NAMES.values() for alias in aliases[:2]]
FUZZ = settings(
    max_examples=1_000,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.slow
@given(st.lists(st.sampled_from(NAMES), max_size=8, unique=True), st.sampled_from(",;\t|"), st.data())
@FUZZ
def test_any_listing_is_listed_whole(
    tmp_path: Path, names: list[str], separator: str, data: st.DataObject
) -> None:
    header = ["uri", *(name for name in names if name != "uri")]
    lines = data.draw(st.lists(st.tuples(*[ODD] * len(header)), min_size=1, max_size=8))
    lines = [[text.encode("utf-8", "replace").decode() for text in line] for line in lines]
    lines = [[f"{number}{line[0]}", *line[1:]] for number, line in enumerate(lines)]
    with (tmp_path / "l.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL, delimiter=separator).writerows([header, *lines])
    columns = dict(zip(header, zip(*lines, strict=True), strict=True))
    pq.write_table(pa.table(columns), tmp_path / "l.parquet")
    for name in ("l.csv", "l.parquet"):
        assert list_source(tmp_path / name).num_rows == len(lines)


@pytest.mark.slow
@given(
    st.binary(max_size=400),
    st.sampled_from([b"uri,lat,lon,time\n", b"path;lat\n", b"PAR1", b"\xff\xfe", b""]),
)
@FUZZ
def test_any_bytes_are_listed_or_refused(tmp_path: Path, data: bytes, start: bytes) -> None:
    for suffix in ("csv", "parquet"):
        (tmp_path / f"l.{suffix}").write_bytes(start + data)
        with contextlib.suppress(PlacerayError):
            assert all(row["image_id"] for row in listed(tmp_path / f"l.{suffix}"))
