"""Parquet listings with columns of all types."""

from __future__ import annotations

import struct
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sources import open_source
from tests.support.listings import listed, names, reasons, write_csv

JULY = datetime(2019, 7, 1, tzinfo=UTC)
TEN = datetime(2019, 7, 1, 10, tzinfo=UTC)

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
        (pa.array([7.0, None]), ["7", "1.jpg"]),
        (pa.array([498763468214164.0, 1.5]), ["498763468214164", "1.5"]),
        (pa.array([Decimal("7"), Decimal("8")]), ["7", "8"]),
        (pa.array([b"ab", None], pa.binary(2)), ["ab", "1.jpg"]),
        (pa.array(["a/b", "Cafe\u0301"]), ["a/b", "Cafe\u0301"]),
        (pa.array([float("nan"), None]), ["0.jpg", "1.jpg"]),
        (pa.array([" ", ""]), ["0.jpg", "1.jpg"]),
    ],
)
def test_missing_ids_are_the_path(tmp_path: Path, ids: pa.Array, expected: list[str]) -> None:
    pq.write_table(pa.table({"path": names(2), "id": ids}), tmp_path / "l.parquet")
    assert [row["image_id"] for row in listed(tmp_path / "l.parquet")] == expected


@pytest.mark.parametrize(
    "geometry",
    [
        pa.array([{"type": "Point", "coordinates": [11.5, 48.5]}]),
        pa.array([[11.5, 48.5]]),
        pa.array([{"x": 11.5, "y": 48.5}]),
        pa.array([struct.pack("<BIdd", 1, 1, 11.5, 48.5)]),
        pa.array([struct.pack("<BIddd", 1, 1001, 11.5, 48.5, 520.0)]),
        pa.array([struct.pack(">BIIdd", 0, 0x20000001, 4326, 11.5, 48.5)]),
    ],
    ids=["struct", "list", "xy", "wkb", "wkb_z", "ewkb"],
)
def test_parquet_points(tmp_path: Path, geometry: pa.Array) -> None:
    pq.write_table(pa.table({"path": ["0.jpg"], "geometry": geometry}), tmp_path / "l.parquet")
    (row,) = listed(tmp_path / "l.parquet")
    assert (row["lat"], row["lon"]) == (48.5, 11.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("lat_lon", [48.5, 11.5]), ("gps", {"lat": 48.5, "lon": 11.5}), ("LatLng", {"lat": 48.5, "lng": 11.5})],
)
def test_parquet_pairs(tmp_path: Path, name: str, value: object) -> None:
    pq.write_table(pa.table({"path": ["0.jpg"], name: pa.array([value])}), tmp_path / "l.parquet")
    (row,) = listed(tmp_path / "l.parquet")
    assert (row["lat"], row["lon"]) == (48.5, 11.5)


def test_parquet_rationals_of_exif_with_their_halves(tmp_path: Path) -> None:
    columns = {"GPSLatitude": pa.array([[48.0, 30.0, 0.0]]), "GPSLatitudeRef": pa.array(["S"])}
    columns |= {"GPSLongitude": pa.array([[11.0, 30.0, 0.0]]), "GPSLongitudeRef": pa.array(["W"])}
    pq.write_table(pa.table({"SourceFile": ["0.jpg"], **columns}), tmp_path / "l.parquet")
    (row,) = listed(tmp_path / "l.parquet")
    assert (row["lat"], row["lon"], row["notes"]) == (-48.5, -11.5, None)


def test_parquet_numbers_of_small_types(tmp_path: Path) -> None:
    columns = {"lat": pa.array([48, None], pa.int8()), "lon": pa.array([11, None], pa.uint64())}
    columns |= {"heading": pa.array([359.5, float("nan")], pa.float16()), "time": pa.array([None, None])}
    pq.write_table(pa.table({"path": names(2), **columns}), tmp_path / "l.parquet")
    rows = [
        (row["lat"], row["lon"], row["heading_deg"], row["notes"]) for row in listed(tmp_path / "l.parquet")
    ]
    assert rows == [(48.0, 11.0, 359.5, None), (None, None, None, None)]


def test_parquet_column_of_the_images_themselves_is_not_read(tmp_path: Path) -> None:
    for image in ([b"x" * 100_000], [{"bytes": b"x", "path": "y"}]):
        pq.write_table(pa.table({"path": ["0.jpg"], "image": pa.array(image)}), tmp_path / "l.parquet")
        assert [row["image_id"] for row in listed(tmp_path / "l.parquet")] == ["0.jpg"]


def test_the_rows_of_a_large_file_are_read_without_holding_the_file(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 256, (100_000, 48), dtype=np.uint8)
    paths = [code.tobytes().hex() for code in codes]
    pq.write_table(pa.table({"path": paths}), tmp_path / "l.parquet")  # one row group
    before = pa.total_allocated_bytes()
    opened = open_source(tmp_path / "l.parquet")
    held = []
    for at, row in zip(range(20_000), opened.rows, strict=False):
        assert row["image_id"] == paths[at]
        if at % 1000 == 0:
            held.append(pa.total_allocated_bytes() - before)
    opened.close()
    assert (tmp_path / "l.parquet").stat().st_size > 9 << 20
    assert max(held) < 5 << 20
    assert held[-1] < held[1] + (1 << 20)  # it does not grow with the rows
