"""Columns of listings by the names that other programs give them, and the paths in them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sources import list_source, listing_notes
from tests.support.listings import listed, names, reasons, write_csv, write_parquet

JULY = datetime(2019, 7, 1, tzinfo=UTC)
TEN = datetime(2019, 7, 1, 10, tzinfo=UTC)

EXIFTOOL_DEGREES = {"GPSLatitude": "48 deg 30' 0.00\" N", "GPSLongitude": "11 deg 30' 0.00\" E"}
EXIF_TIME = {"DateTimeOriginal": "2019:07:01 12:00:00", "OffsetTimeOriginal": "+02:00"}
REFS = {"GPSLatitudeRef": "North", "GPSLongitudeRef": "E"}
PLACED = {"Composite:GPSLatitude": "48.5", "Composite:GPSLongitude": "11.5", "GPS Img Direction": "20.5"}
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
        {"ExifIFD:DateTimeOriginal": "2019:07:01 10:00:00", "SourceFile": "0.jpg", "FileName": "x", **PLACED},
        {
            "XMP-drone-dji:GpsLatitude": "48.5",
            "XMP-drone-dji:GpsLongtitude": "11.5",
            "SourceFile": "0.jpg",
            "XMP-drone-dji:GimbalYawDegree": "+20.50",
        },
        {
            "filename": "0.jpg",
            "MAPLatitude": "48.5",
            "MAPLongitude": "11.5",
            "MAPCompassHeading.TrueHeading": "20.5",
        },
        {
            "title": "0.jpg",
            "geoData.latitude": "48.5",
            "geoData.longitude": "11.5",
            "heading": "20.5",
            "photoTakenTime.timestamp": "1561975200",
        },
        {
            "name": "0.jpg",
            "lat": "48.5",
            "lng": "11.5",
            "heading": "20.5",
            "shot_date": "2019-07-01 10:00:00",
        },
        {"NAME": "0.jpg", "Lat.": "48.5", "Lon.": "11.5", "Compass Heading (degrees)": "20.5", "TZ": "1.25"},
        {"path": "0.jpg", "latitudeE7": "485000000", "longitudeE7": "115000000", "northdeg": "20.5"},
        {"path": "0.jpg", "lat_rad": "0.8464846816", "lon_rad": "0.2007128640", "yaw (rad)": "0.3577924966"},
        {"path": "0.jpg", "location.lat": "48.5", "location.lon": "11.5", "gimbal_heading(degrees)": "20.5"},
        {"path": "0.jpg", "decimalLatitude": "48.5", "decimalLongitude": "11.5", "heading_true": "20.5"},
        {"IMAGE": "0.jpg", "LAT": "48.5", "LONG": "11.5", "Camera Heading": "20.5", "date": "2019-07-01"},
    ],
)
def test_columns_of_other_programs(tmp_path: Path, columns: dict[str, str]) -> None:
    values: dict[str, list[Any]] = {name: [value] for name, value in columns.items()}
    for path in (write_csv(tmp_path / "l.csv", values), write_parquet(tmp_path / "l.parquet", values)):
        (row,) = listed(path)
        assert row["image_id"] == "0.jpg"
        assert (row["lat"], row["lon"], row["heading_deg"]) == pytest.approx((48.5, 11.5, 20.5), abs=1e-6)
        assert row["notes"] is None
        timed = any("date" in name.lower() or "stamp" in name.lower() for name in columns)
        assert (row["captured_at"] in (JULY, TEN)) == timed


@pytest.mark.parametrize(
    "columns",
    [
        {"date": "2019-07-01", "time": "10:00:00"},
        {"date": "20190701", "time": "12:00:00+02:00"},
        {"DateTimeOriginal": "2019:07:01 12:00:00", "OffsetTimeOriginal": "+02:00"},
        {"DateTimeOriginal": "20190701120000", "OffsetTimeOriginal": "+2"},
        {"time": "2019-07-01 12:00", "timezone": "Europe/Berlin"},
        {"time": "2019-07-01 12:00", "utc_offset": "2"},
        {"time": "2019-07-01 12:00", "utc_offset": "7200.0"},
        {"time": "1561975200", "timezone": "Europe/Berlin"},
        {"date": "20190701", "time": "100000"},
        {"date": "2019-07-01", "time": "1000"},
        {"year": "2019", "month": "7", "day": "1", "time": "10:00 am"},
        {"GPSTimeStamp": "10:00:00", "GPSDateStamp": "2019:07:01"},
        {"DateTimeOriginal": "", "CreateDate": "2019:07:01 10:00:00"},
        {"DateTimeOriginal": "2019:07:01 12:00:00+02:00", "OffsetTimeOriginal": "+05:00"},
    ],
)
def test_times_in_two_columns(tmp_path: Path, columns: dict[str, str]) -> None:
    (row,) = listed(
        write_csv(tmp_path / "l.csv", {"path": ["0.jpg"], **{k: [v] for k, v in columns.items()}})
    )
    assert (row["captured_at"], row["notes"]) == (TEN, None)


def test_second_column_of_the_same_meaning_is_noted(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "l.csv", {"path": ["0.jpg"], "compass_angle": [20], "heading": [10]})
    listing = list_source(path)
    assert listing["heading_deg"].to_pylist() == [10.0]
    assert [note.reason for note in listing_notes(listing)] == ["unused_column"]
    assert "compass_angle" in listing_notes(listing)[0].message


@pytest.mark.parametrize(
    "columns",
    [
        {"year": 2019, "month": 7, "day": 1},
        {"year": 2019.0, "month": 7.0},
        {"year": 2019, "month": 7, "date": datetime(2019, 7, 1)},
        {"date": 20190701},
    ],
)
def test_dates_in_parts(tmp_path: Path, columns: dict[str, Any]) -> None:
    values: dict[str, list[Any]] = {"path": ["0.jpg"], **{name: [value] for name, value in columns.items()}}
    for path in (write_csv(tmp_path / "l.csv", values), write_parquet(tmp_path / "l.parquet", values)):
        assert [(row["captured_at"], row["notes"]) for row in listed(path)] == [(JULY, None)]


def test_unknown_time_zone_is_noted(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {"path": ["0.jpg"], "time": ["2019-07-01 10:00"], "timezone": ["local"]}
    (row,) = listed(write_csv(tmp_path / "l.csv", columns))
    assert (row["captured_at"], reasons(row)) == (TEN, ["bad_offset"])


def test_second_column_of_the_same_meaning_fills_the_gaps_of_the_first(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "path": names(3),
        "computed_compass_angle": ["12.5", "", "NA"],
        "compass_angle": ["30", "31", ""],
        "computed_geometry": ["POINT (11.5 48.5)", None, "null"],
        "geometry": ["POINT (12 49)", "POINT (12 49)", ""],
    }
    for path in (write_csv(tmp_path / "l.csv", columns), write_parquet(tmp_path / "l.parquet", columns)):
        rows = [(row["heading_deg"], row["lat"], row["lon"], row["notes"]) for row in listed(path)]
        assert rows == [(12.5, 48.5, 11.5, None), (31.0, 49.0, 12.0, None), (None, None, None, None)]


def test_composite_columns_of_exiftool_come_before_those_of_exif(tmp_path: Path) -> None:
    columns = {"SourceFile": ["0.jpg"], "EXIF:GPSLatitude": ["33.86"], "EXIF:GPSLongitude": ["151.2"]}
    columns |= {"Composite:GPSLatitude": ["-33.86"], "Composite:GPSLongitude": ["151.2"]}
    (row,) = listed(write_csv(tmp_path / "l.csv", columns))
    assert (row["lat"], row["lon"]) == (-33.86, 151.2)


def test_columns_of_other_meanings_are_left_alone(tmp_path: Path) -> None:
    columns = {
        "path": ["0.jpg"],
        "name": ["Town Hall"],
        "place.name": ["x"],
        "north": [""],
        "northdeg": ["90"],
    }
    path = write_csv(tmp_path / "l.csv", columns)
    (row,) = listed(path)
    assert (row["image_id"], row["heading_deg"], row["utm_n"], row["notes"]) == ("0.jpg", 90.0, None, None)
    assert listing_notes(list_source(path)) == []


def test_tags_become_a_list(tmp_path: Path) -> None:
    texts = ["night; rain", '["night", "rain"]', "night,rain,night", "", "['night', 'rain']", "{night,rain}"]
    texts += ['"night";"rain"', "NA"]
    path = write_csv(tmp_path / "l.csv", {"path": names(8), "tags": texts})
    expected = [["night", "rain"]] * 3 + [None] + [["night", "rain"]] * 3 + [["NA"]]
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


def test_paths_in_another_normal_form_or_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    composed, decomposed = "Caf\u00e9.jpg", "Cafe\u0301.jpg"
    for name in ("a.jpg", decomposed):
        (tmp_path / name).write_bytes(b"x")
    uris = [composed, "~/a.jpg", "~/../b.jpg"]
    rows = listed(write_csv(tmp_path / "l.csv", {"uri": uris}))
    assert [row["rejected"] for row in rows] == [None, None, "outside_root"]
    assert [row["uri"] for row in rows[:2]] == [str(tmp_path / decomposed), str(tmp_path / "a.jpg")]
    (tmp_path / composed).write_bytes(b"y")  # each name is then a file of its own
    assert listed(tmp_path / "l.csv")[0]["uri"] == str(tmp_path / composed)
