"""`placeray calibrate` on a drawn city, and what query and evaluate say before and after it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.demo.dataset import draw_city
from serving.engine import QueryEngine
from serving.places.calibration import Calibration
from serving.places.rerank_rule import RerankRule
from storage.calibration_file import CALIBRATION_FILE
from storage.store import Store
from tests.support.city_store import CityStore, make_city_store

CANDIDATES = 20


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main([*arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.fixture
def copied(city_store: CityStore, tmp_path: Path) -> CityStore:
    """The city of 16 queries, with a store that may be written."""
    uri = shutil.copytree(city_store.uri, tmp_path / "store")
    return dataclasses.replace(city_store, uri=str(uri))


def test_too_few_photos_are_counted_and_nothing_is_written(
    copied: CityStore, capsys: pytest.CaptureFixture[str]
) -> None:
    city = str(copied.folder / "city")
    code, _, err = run(capsys, "calibrate", city, "--store", copied.uri, "--candidates", "5", "--quiet")
    assert code == 2
    assert "16 labelled photos are too few" in err
    assert "at least 20" in err
    assert not Path(copied.uri, CALIBRATION_FILE).exists()
    asked = ["query", str(copied.queries[0]), "--store", copied.uri, "--candidates", "5"]
    code, _, err = run(capsys, *asked, "--max-wrong", "0.1")
    assert code == 5
    assert "placeray calibrate" in err
    code, out, _ = run(capsys, *asked)
    assert code == 0
    assert "calibrated" not in out


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[CityStore, dict[str, Any]]:
    """A city of 32 queries, calibrated with 24 photos of another city, and the summary."""
    folder = tmp_path_factory.mktemp("calibrated")
    city = make_city_store(folder, queries=32)
    other = folder / "elsewhere"
    draw_city(other, seed=8, database_images=12, query_images=24)
    with pytest.MonkeyPatch.context() as patch:
        printed: list[dict[str, Any]] = []
        patch.setattr("pipelines.cli.jobs.print_json", printed.append)
        arguments = ["calibrate", str(folder / "city"), "--store", city.uri, "--max-wrong", "0.3"]
        arguments += ["--elsewhere", str(other / "images/test/queries"), "--candidates", str(CANDIDATES)]
        assert main([*arguments, "--json", "--quiet"]) == 0
    (summary,) = printed
    return city, summary


@pytest.mark.long
def test_a_calibration_is_written_and_summarised(calibrated: tuple[CityStore, dict[str, Any]]) -> None:
    city, summary = calibrated
    values = json.loads(Path(city.uri, CALIBRATION_FILE).read_text())
    made = Calibration.from_dict(values)
    assert (made.photos, made.elsewhere, made.max_wrong) == (56, 24, 0.3)
    assert json.loads(json.dumps(summary))["promises"] == values["promises"]
    assert (summary["photos"], summary["elsewhere"]) == (56, 24)
    assert 0 < summary["tested"] < 56
    assert 0.4 < summary["right"] <= 32 / 56  # no answer to a photo of another city is right
    assert made.promises[0].level <= 0.3
    assert made.conditions.candidates == CANDIDATES
    assert made.search_method == summary["search_method"] == "exact"


@pytest.mark.long
def test_a_calibration_holds_for_the_search_method_that_it_was_made_with(
    calibrated: tuple[CityStore, dict[str, Any]], tmp_path: Path
) -> None:
    city, _ = calibrated
    uri = str(shutil.copytree(city.uri, tmp_path / "store"))
    arguments = ["calibrate", str(city.folder / "city"), "--store", uri, "--max-wrong", "0.3"]
    arguments += ["--elsewhere", str(city.folder / "elsewhere/images/test/queries")]
    assert main([*arguments, "--candidates", str(CANDIDATES), "--method", "lance", "--quiet"]) == 0
    for method, guaranteed in (("lance", True), ("exact", False)):
        answer = QueryEngine.open(uri, method=method).answer(city.queries[0], candidates=CANDIDATES)
        assert answer.calibration is not None
        assert (answer.calibration["valid"], answer.calibration["guaranteed"]) == (True, guaranteed)
        assert answer.place["known"] is not None


@pytest.mark.long
def test_queries_follow_the_calibration(
    calibrated: tuple[CityStore, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    city, summary = calibrated
    asked = ["query", str(city.queries[0]), "--store", city.uri]
    same = [*asked, "--candidates", str(CANDIDATES)]
    code, out, _ = run(capsys, *same, "--max-wrong", "0.3", "--json")
    (answer,) = json.loads(out)["queries"]
    assert code == 0
    assert answer["place"]["known"] in (True, False)
    assert 0 <= answer["place"]["probability_right"] <= 1
    assert (answer["calibration"]["valid"], answer["calibration"]["guaranteed"]) == (True, True)
    below = summary["promises"][0]["level"] / 2
    code, _, err = run(capsys, *same, "--max-wrong", f"{below:g}")
    assert code == 2
    assert f"{summary['promises'][0]['level']:g}" in err
    code, out, _ = run(capsys, *asked, "--candidates", "7")
    assert code == 0
    assert "not calibrated" in out
    assert "candidates 7 instead of 20" in out
    code, out, _ = run(capsys, *same, "--prior", "48.2,16.37,500")
    assert code == 0
    assert "not guaranteed: a filter or a prior" in out


@pytest.mark.long
def test_evaluate_measures_places_what_is_known_and_the_rule(
    calibrated: tuple[CityStore, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    city, _ = calibrated
    evaluate = ["evaluate", str(city.folder / "city"), "--store", city.uri, "--json", "--quiet"]
    code, out, _ = run(capsys, *evaluate, "--candidates", str(CANDIDATES))
    summary = json.loads(out)
    assert code == 0
    assert {"median_m", "p90_m", "within_m", "radius_coverage"} <= summary["place"].keys()
    assert (summary["known"]["queries"], summary["known"]["of"]) == (32, 32)
    assert {"coverage", "false_discovery_rate", "auc_pr", "ece"} <= summary["known"].keys()
    assert summary["rerank"] == {}
    auto = [*evaluate, "--rerank", "auto"]
    with changed_rule(city, RerankRule("none", ms_per_query=4.0)):
        code, out, _ = run(capsys, *auto, "--candidates", str(CANDIDATES))
        summary = json.loads(out)
        assert (summary["rerank"]["rule"]["mode"], summary["rerank"]["skipped"]) == ("none", 1.0)
        assert summary["rerank"]["saved_ms"] == 4.0
        assert summary["known"] == {}
        # With other candidates the calibration is not valid, and neither is its rule.
        code, out, _ = run(capsys, *auto, "--candidates", "7")
        assert json.loads(out)["rerank"] == {"rule": None, "skipped": 0.0, "saved_ms": None}
        engine = QueryEngine.open(city.uri)
        assert engine.rerank_rule(candidates=7) is None
        assert engine.rerank_rule(candidates=CANDIDATES) == RerankRule("none", ms_per_query=4.0)


class changed_rule:  # noqa: N801
    """While it is entered, the calibration of a city has another rule of re-ranking."""

    def __init__(self, city: CityStore, rule: RerankRule) -> None:
        self._store, self._rule = Store.open(city.uri), rule
        self._path = Path(city.uri, CALIBRATION_FILE)

    def __enter__(self) -> None:
        self._former = self._path.read_bytes()
        values = json.loads(self._former) | {"rerank": self._rule.to_dict()}
        with self._store.lease():
            self._store.write_measured(CALIBRATION_FILE, values)

    def __exit__(self, *_: object) -> None:
        self._path.write_bytes(self._former)
