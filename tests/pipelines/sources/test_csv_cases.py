"""CSV listings of any separator, quoting and encoding."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.sources import SourceError, list_source
from tests.support.listings import listed, names, write_csv

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


@pytest.mark.parametrize(
    "text",
    [
        "# exported on 2019-07-01\n#\n" + TEXT,
        "# path,lat,lon,street\n" + TEXT.partition("\n")[2],
        "# image_name lat lon\n0.jpg 48.5   11.5\n1.jpg 48.6 11.6\n",
        "path lat lon\n0.jpg 48.5 11.5\n1.jpg 48.6 11.6\n",
        TEXT.replace("Münchner", '"he said \\"hi, you\\" and\nleft"'),
        TEXT.replace("Münchner Straße", '"C:\\photos\\"'),
        TEXT.replace("lon,street", "lon,").replace("Münchner Straße", "").replace(",x", ","),
        "," + TEXT.replace("\n0", "\n0,0").replace("\n1", "\n1,1"),
        TEXT.replace("11.5,", "11.5\0,"),
        TEXT.replace("Münchner", "a\u2028b\x85c"),
        TEXT.replace("\n", "\r\n", 1).replace("x\n", "x\r"),
    ],
)
def test_csv_as_programs_write_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "l.txt").write_bytes(text.encode())
    rows = listed(tmp_path / "l.txt")
    places = [(row["image_id"], row["lat"], row["lon"], row["rejected"]) for row in rows]
    assert places == [("0.jpg", 48.5, 11.5, None), ("1.jpg", 48.6, 11.6, None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\ufeff\n\n", "is empty"),
        ("path,lat\n", "contains no images"),
        ("where,lat\n0.jpg,1\n", "has no column uri (or path) but where, lat: rename one"),
    ],
)
def test_csv_without_rows_or_paths_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "l.csv").write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match=re.escape(message)):
        list_source(tmp_path / "l.csv")


def test_csv_row_with_unquoted_separators_is_rejected_alone(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("path,lat,lon\n0.jpg,48,5,11,5\n1.jpg,48.6,11.6\n")
    rejected = [row["rejected"] for row in listed(tmp_path / "l.csv")]
    assert rejected == ["bad_value", None]


def test_csv_large_with_line_breaks_in_quotes(tmp_path: Path) -> None:
    count = 4_000
    captions = [f"corner shop,\nlooking north, {'brick facade ' * 8}\nframe {i}" for i in range(count)]
    columns = {"path": names(count), "lat": [48.5] * count, "lon": [11.5] * count, "caption": captions}
    path = write_csv(tmp_path / "l.csv", columns)
    rows = listed(path)
    assert len(rows) == count
    assert {(row["lat"], row["rejected"]) for row in rows} == {(48.5, None)}


def test_csv_column_of_paths_alone_may_contain_separators(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("uri\nsemi;colon,comma.jpg\n")
    assert [row["image_id"] for row in listed(tmp_path / "l.csv")] == ["semi;colon,comma.jpg"]
