"""Listings that expand, are no listings, or are random: listed whole or refused."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.sources import SourceError, list_source
from pipelines.sources.columns import COLUMN_NAMES
from storage.errors import PlacerayError
from tests.pipelines.sources.test_field_cases import HEADINGS, TIMES
from tests.support.listings import listed


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


@pytest.mark.parametrize(
    "tags",
    [
        lambda: pa.array([["x" * 1_000] * 60] * 3_000),
        lambda: pa.array([["x" * 100_000]] + [None] * 2_999),
        lambda: pa.array([[(["x" * 1_000] * 60)]] * 3_000),
        lambda: pa.array([{"a": "x" * 60_000}] * 3_000),
        lambda: pa.array([[("key", "x" * 60_000)]] * 3_000, pa.map_(pa.string(), pa.string())),
        lambda: pa.array([[1] * 3_000_000] + [None] * 2_999),
    ],
    ids=["texts", "one text", "lists", "structs", "maps", "numbers"],
)
def test_parquet_of_lists_that_expand_is_refused(tmp_path: Path, tags: Callable[[], pa.Array]) -> None:
    table = pa.table({"uri": [f"{number}.jpg" for number in range(3_000)], "tags": tags()})
    pq.write_table(table, tmp_path / "l.parquet", compression="zstd")
    assert (tmp_path / "l.parquet").stat().st_size < 50_000
    with pytest.raises(SourceError, match=r"expand|at most"):
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
