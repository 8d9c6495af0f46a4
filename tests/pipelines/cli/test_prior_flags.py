"""The flags of what the asker knows, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.cli.prior_flags import join_coordinates
from storage.store import Store
from tests.support.city_store import CityStore


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["query", *arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.fixture(scope="module")
def place(city_store: CityStore) -> dict[str, Any]:
    return next(place for place in Store.open(city_store.uri).places(48) if place["lat"] is not None)


def test_photos_are_located_among_the_images_that_the_flags_leave(
    city_store: CityStore, place: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lat, lon = place["lat"], place["lon"]
    ring = [[lon - 1e-3, lat - 1e-3], [lon + 1e-3, lat - 1e-3], [lon, lat + 1e-3], [lon - 1e-3, lat - 1e-3]]
    (tmp_path / "area.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    asked = [str(city_store.queries[0]), "--store", city_store.uri, "--candidates", "5"]
    narrowed = ["--near", f"{lat},{lon}", "--radius-m", "50", "--within", str(tmp_path / "area.geojson")]
    code, out, _ = run(capsys, *asked, *narrowed, "--prior", f"{lat},{lon},20", "--json")
    (answer,) = json.loads(out)["queries"]
    assert code == 0
    assert 0 < answer["considered"] < 48
    assert answer["calibration"]["guaranteed"] is False
    code, out, _ = run(capsys, *asked, *narrowed, "--format", "geojson")
    feature = json.loads(out)["features"][0]
    assert feature["properties"]["considered"] == answer["considered"]
    code, out, _ = run(capsys, *asked, "--near=-33.8,151.2", "--radius-m", "9")
    assert code == 0
    assert "the filters leave no stored image" in out
    assert "0 images considered" in out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--near", "48,11"], "--near goes with --radius-m: add it"),
        (["--near", "-91,11", "--radius-m", "5"], "not a position"),
        (["--prior", "48,11"], "'48,11' cannot be read"),
        (["--within", "/none.geojson"], "/none.geojson cannot be read"),
        (["--taken-after", "soon"], "not a time"),
        (["--heading-tolerance", "5"], "--heading-tolerance goes with --heading"),
    ],
)
def test_flags_that_cannot_be_used_end_with_exit_2_before_the_model_is_loaded(
    city_store: CityStore, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    code, out, err = run(capsys, "photo.jpg", "--store", city_store.uri, *flags)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_a_negative_latitude_is_a_value_and_not_a_flag() -> None:
    given = ["--near", "-33.8,151.2", "--prior", "-.5,1,2", "--radius-m", "-5", "--near", "--json"]
    joined = ["--near=-33.8,151.2", "--prior=-.5,1,2", "--radius-m", "-5", "--near", "--json"]
    assert join_coordinates(given) == joined
