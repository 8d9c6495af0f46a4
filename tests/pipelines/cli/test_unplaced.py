"""What the verbs say where the stored images have no position."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from pipelines.cli import main
from serving.answer import unknown_place
from storage.store import Store
from tests.support.city_store import CityStore, make_unplaced_store


@pytest.fixture(scope="module")
def unplaced(city_store: CityStore, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_unplaced_store(tmp_path_factory.mktemp("unplaced"), city_store)


def test_query(unplaced: Store, city_store: CityStore, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["query", str(city_store.queries[0]), "--store", unplaced.uri]
    assert main(asked) == 0
    assert "  place unknown: no candidate has a position\n" in capsys.readouterr().out
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["queries"][0]["place"] == unknown_place()
    assert main([*asked, "--format", "geojson"]) == 0
    features = json.loads(capsys.readouterr().out)["features"]
    assert features[0]["geometry"] is None
    assert features[0]["properties"].items() >= unknown_place().items()


def test_track(
    unplaced: Store, city_store: CityStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames, out = map(str, city_store.queries[:2]), tmp_path / "drive.gpx"
    assert (
        main(["track", *frames, "--store", unplaced.uri, "--quiet", "--format", "json", "--out", str(out)])
        == 0
    )
    track = json.loads(capsys.readouterr().out)
    assert [frame["position"] for frame in track["frames"]] == [None, None]
    assert "<trkpt" not in out.read_text()


def test_locate(
    unplaced: Store, city_store: CityStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(city_store.queries[0].read_bytes())
    out = tmp_path / "places.csv"
    asked = ["locate", str(photos), "--store", unplaced.uri, "--out", str(out), "--quiet", "--json"]
    for flags, reason in (([], "no_position"), (["--tag", "none"], "no_candidates")):
        assert main([*asked, *flags]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["located"], report["unknown"], report["review"]) == (0, 1, [])
        (row,) = csv.DictReader(out.read_text().splitlines())
        assert (row["status"], row["reason"], row["lat"], row["calibrated"]) == (
            "unknown",
            reason,
            "",
            "False",
        )


def test_evaluate(unplaced: Store, city_store: CityStore, capsys: pytest.CaptureFixture[str]) -> None:
    queries = str(city_store.folder / "city/images/test/queries")
    database = str(Path(unplaced.uri).with_name("unplaced"))
    asked = ["evaluate", "--database", database, "--queries", queries, "--store", unplaced.uri, "--quiet"]
    assert main(asked) == 2
    assert "none of 6 images" in capsys.readouterr().err
