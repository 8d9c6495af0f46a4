"""Photos without a position are located: lists, report and review page."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Browser

from models.images.writing.jpeg_segments import with_position
from models.images.writing.tiff_gps import ExifPosition
from pipelines.cli import main
from pipelines.locate.entry import COLUMNS, Entry
from pipelines.locate.lists import UnknownListFormat, list_bytes
from pipelines.locate.reviewed import read_accepted
from storage.calibration_file import CALIBRATION_FILE
from storage.store import Store
from tests.serving.http.test_place_parameters import calibration_of
from tests.support.city_store import CityStore

HOSTILE = "</script><img src=x onerror=alert(1)>.jpg"
GPX = "{http://www.topografix.com/GPX/1/1}"


@pytest.fixture(scope="module")
def photos(city_store: CityStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old") / "photos"
    folder.mkdir()
    for number, query in enumerate(city_store.queries[:3]):
        shutil.copy(query, folder / f"{number}.jpg")
    shutil.copy(city_store.queries[3], folder / HOSTILE.replace("/", "_"))
    placed = with_position(city_store.queries[4].read_bytes(), ExifPosition(50.0, 9.0))
    (folder / "placed.jpg").write_bytes(placed)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    return folder


@pytest.fixture(scope="module")
def located(photos: Path, city_store: CityStore) -> Path:
    out = photos.parent / "places.csv"
    assert main(["locate", str(photos), "--store", city_store.uri, "--out", str(out), "--quiet"]) == 0
    return out


def test_every_photo_is_listed_with_its_place_or_why_it_has_none(located: Path, photos: Path) -> None:
    with open(located, newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert set(rows) == {path.name for path in photos.iterdir() if path.is_file()}
    assert rows["placed.jpg"]["status"] == "has_position"
    assert (rows["broken.jpg"]["status"], rows["broken.jpg"]["lat"]) == ("rejected", "")
    assert rows["broken.jpg"]["reason"]
    for number in range(3):
        row = rows[f"{number}.jpg"]
        assert list(row) == list(COLUMNS)
        assert row["status"] == "located"
        assert 48.19 < float(row["lat"]) < 48.21
        assert row["evidence"]
        assert row["folder"] == str(photos)
    names = sorted(path.name for path in located.parent.iterdir())
    assert names == ["photos", "places-review.html", "places.csv"]


def test_filters_and_formats_are_those_of_queries(
    photos: Path, city_store: CityStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "places.geojson"
    asked = ["locate", str(photos), "--store", city_store.uri, "--out", str(out), "--quiet", "--json"]
    assert main([*asked, "--no-review", "--near=-33,151", "--radius-m", "10", "--candidates", "5"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["photos"], report["located"], report["unknown"]) == (6, 0, 4)
    assert (report["has_position"], report["rejected"], report["review"]) == (1, 1, [])
    features = json.loads(out.read_text())["features"]
    assert {feature["properties"]["considered"] for feature in features} == {0, None}
    for wrong in (["--out", str(tmp_path / "places.txt")], ["--near", "1,2"]):
        assert main([*asked, *wrong]) == 2


@pytest.fixture
def calibrated(city_store: CityStore) -> Iterator[str]:
    file = Path(city_store.uri, CALIBRATION_FILE)
    file.write_text(json.dumps(calibration_of(Store.open(city_store.uri)).to_dict()))
    yield city_store.uri
    file.unlink()


@pytest.mark.parametrize(
    ("flags", "known", "words"),
    [
        ("", "True", ""),
        ("--score count", "", "score count instead of votes"),
        ("--heading 0 --heading-tolerance 180", "True", "a filter or a prior changed what was searched"),
    ],
)
def test_the_list_says_why_a_calibration_does_not_hold(
    photos: Path,
    calibrated: str,
    flags: str,
    known: str,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "places.csv"
    asked = ["locate", str(photos), "--store", calibrated, "--out", str(out), "--quiet", "--no-review"]
    assert main([*asked, *flags.split()]) == 0
    printed = capsys.readouterr().out
    rows = {row["image"]: row for row in csv.DictReader(out.read_text().splitlines())}
    assert (rows["0.jpg"]["known"], rows["0.jpg"]["guaranteed"]) == (known, str(not flags))
    assert rows["0.jpg"]["calibration_reason"].endswith(words)
    assert ("does not hold in full for 4: " in printed) is bool(flags)
    assert words in printed
    assert (rows["placed.jpg"]["calibration_reason"], rows["broken.jpg"]["guaranteed"]) == ("", "")


def entry(name: str, **changed: Any) -> Entry:
    position = {"lat": -33.8567844, "lon": 151.2152967, "utm_e": 1.0, "utm_n": 2.0, "utm_zone": "56H"}
    place = {"position": position, "radius_m": 17.0, "heading_deg": None, "probability_right": 0.8}
    place |= {"known": True, "calibrated": True, "evidence": ["=a", "b"], "spread_m": 1.0}
    values: dict[str, Any] = {
        "folder": "/photos",
        "path": "",
        "sha256": "",
        "status": "located",
        "place": place,
    }
    return Entry(image=name, **(values | changed))


def test_lists_hold_positions_and_no_name_can_do_harm() -> None:
    entries = [entry("=1+1.jpg"), entry("<a>&\x1b.jpg"), entry("u.jpg", status="unknown", place=None)]
    rows = list(csv.DictReader(list_bytes(entries, "a.csv").decode().splitlines()))
    assert rows[0]["image"] == "'=1+1.jpg"
    assert (rows[0]["lat"], rows[0]["evidence"], rows[2]["lat"]) == ("-33.8567844", "'=a b", "")
    features = json.loads(list_bytes(entries, "a.GEOJSON"))["features"]
    assert features[0]["geometry"] == {"type": "Point", "coordinates": [151.2152967, -33.8567844]}
    assert features[0]["properties"]["evidence"] == ["=a", "b"]
    assert features[2]["geometry"] is None
    points = list(ElementTree.fromstring(list_bytes(entries, "a.gpx")).iter(f"{GPX}wpt"))
    assert [point.get("lat") for point in points] == ["-33.8567844"] * 2
    assert points[1].findtext(f"{GPX}name") == "<a>&\\x1b.jpg"
    with pytest.raises(UnknownListFormat, match="gpx"):
        list_bytes(entries, "a.kml")


def test_the_review_page_loads_nothing_and_holds_every_place(located: Path) -> None:
    page = located.with_name("places-review.html").read_text()
    assert page.count('<article class="card"') == 4
    assert "default-src 'none'" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<img src=x" not in page
    assert page.count("data:image/jpeg;base64,") >= 8
    assert page.count("<svg") == 4


@pytest.mark.slow
def test_places_are_accepted_and_rejected_by_keyboard(
    located: Path, browser: Browser, tmp_path: Path
) -> None:
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(located.with_name("places-review.html").as_uri())
    for key in ("a", "r", "ArrowRight", "a", "u", "r", "Home", "a", "a"):
        page.keyboard.press(key)
    counted = page.locator("#count").inner_text()
    page.reload()
    assert page.locator("#count").inner_text() == counted
    with page.expect_download() as download:
        page.keyboard.press("s")
    assert download.value.suggested_filename == "reviewed.csv"
    download.value.save_as(tmp_path / "reviewed.csv")
    page.close()
    assert not errors
    photos = read_accepted(tmp_path / "reviewed.csv")
    assert counted.startswith(f"{len(photos)} accepted")
    assert photos
    assert all(photo.sha256 and photo.lat is not None for photo in photos)
