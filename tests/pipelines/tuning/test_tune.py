"""Tuning: what is chosen for each target, and the settings file that serve reads."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipelines.cli import main, queries
from pipelines.evaluation.full_features import FullFeatures
from pipelines.serve import settings_of
from pipelines.tuning.describe import tuning_lines
from pipelines.tuning.job import _choose, _methods, tune
from pipelines.tuning.settings_file import read_settings_file, settings_text
from pipelines.tuning.trials import Option, Trial
from serving.engine import QueryEngine
from serving.settings import InvalidSettings
from tests.support.city_store import CityStore, store_of


def trial(right: int, ms: float, candidates: int) -> Trial:
    return Trial(Option(candidates=candidates), np.arange(10) < right, np.full(10, ms))


class Extracted:
    extract_ms = 5.0


def test_the_fastest_of_good_settings_or_the_best_of_fast_ones() -> None:
    trials = [trial(10, 20.0, 100), trial(9, 8.0, 50), trial(9, 4.0, 20), trial(5, 1.0, 5)]

    def chosen(**target: Any) -> tuple[int, bool]:
        target = {"target_recall": None, "target_ms": None} | target
        picked, reached = _choose(trials, trials[0], Extracted(), **target)  # type: ignore[arg-type]
        return picked.option.candidates, reached

    assert chosen(target_recall=1.0) == (100, True)
    assert chosen(target_recall=0.9) == (20, True)
    assert chosen(target_ms=14.0) == (20, True)
    assert chosen(target_ms=6.0) == (5, True)
    assert chosen(target_ms=1.0) == (5, False)


@pytest.mark.integration
def test_settings_are_chosen_written_and_read_by_serve(
    city_store: CityStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "tuned.yaml"
    city = str(city_store.folder / "city")
    arguments = [
        "tune",
        city,
        "--store",
        city_store.uri,
        "--target-recall",
        "0.9",
        "--out",
        str(out),
        "--quiet",
    ]
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["photos"] == len(city_store.queries)
    assert told["chosen"]["recall"] >= 0.9 * told["reference"]["recall"]
    assert told["chosen"]["ms"] <= told["trials"][0]["ms"]
    assert len(told["trials"]) >= 10
    assert [one["features"] for one in told["encodings"]] == ["float16", "int8", "int4", "int2", "binary"]
    assert told["recommended_features"]["times_smaller"] >= 1.0
    assert told["methods_tried"] == ["exact"]
    assert "# Search methods tried: exact; the approximate index chooses its probes itself." in (
        out.read_text().splitlines()
    )
    values = read_settings_file(out)
    assert values["candidates"] == told["chosen"]["candidates"]
    lines = list(tuning_lines(told))
    assert lines[0] == f"{told['photos']} labelled photos of {told['places']} places"
    assert sum(line.startswith("tried: ") for line in lines) == len(told["trials"])
    (chosen,) = (line for line in lines if line.startswith("chosen: "))
    assert f"{values['candidates']} candidates" in chosen
    assert f"R@1 {told['chosen']['recall']:.1f}, {told['chosen']['ms']:.1f} ms" in chosen
    assert any("recommended for a new store: --features" in line for line in lines)
    assert "places are too few for trustworthy intervals" in "\n".join(lines)
    assert lines[-1] == f"settings: {out}, for placeray serve --settings"

    served: list[Any] = []
    monkeypatch.setattr("pipelines.serve.serve_store", lambda settings, **_: served.append(settings))
    monkeypatch.setattr(queries, "_new_log_file", lambda: "-")
    assert main(["serve", "--store", city_store.uri, "--settings", str(out), "--matching", "fast"]) == 0
    (settings,) = served
    assert settings.candidates == told["chosen"]["candidates"]
    assert settings.matching == "fast", "flags win"
    assert settings.score == told["chosen"]["score"]


def test_one_target_is_needed(city_store: CityStore, capsys: pytest.CaptureFixture[str]) -> None:
    city = str(city_store.folder / "city")
    for targets in ([], ["--target-recall", "0.9", "--target-ms", "5"]):
        assert main(["tune", city, "--store", city_store.uri, *targets, "--quiet"]) == 2
        assert "one target" in capsys.readouterr().err


def test_encodings_are_left_out_where_photos_are_gone(
    city_store: CityStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = QueryEngine.open(city_store.uri)
    shape = (2, *FullFeatures(engine).codec.grid, engine.store.card.feature_dim)
    gone = np.zeros(shape, np.float16), np.zeros(2, bool)
    monkeypatch.setattr(FullFeatures, "fetch", lambda self, records: gone)
    result = tune(city_store.folder / "city", city_store.uri, target_ms=1e6, photos=3)
    assert (result["encodings"], result["recommended_features"]) == ([], None)
    assert result["reached"]


def test_nothing_is_recommended_for_a_store_without_local_features(
    city_store: CityStore, tmp_path: Path
) -> None:
    store = store_of(city_store, tmp_path / "store", features="none")
    out = tmp_path / "tuned.yaml"
    result = tune(city_store.folder / "city", store.uri, target_recall=0.9, photos=8, out=out)
    assert (result["encodings"], result["recommended_features"]) == ([], None)
    assert [(one["method"], one["candidates"]) for one in result["trials"]] == [("exact", None)]
    assert result["chosen"]["recall"] > 0
    assert "--features" not in out.read_text()
    assert "candidates" not in read_settings_file(out)


def test_each_search_method_that_the_store_has_is_tried() -> None:
    def methods(rows: int, bits: int | None, indexed: bool) -> list[str]:
        card = SimpleNamespace(code_bits=bits)
        return list(_methods(SimpleNamespace(count=rows, card=card, has_index=indexed)))  # type: ignore[arg-type]

    assert methods(100, None, False) == []
    assert methods(5000, None, False) == ["ivf"]
    assert methods(5000, 256, True) == ["ivf", "codes", "lance"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "not a mapping"),
        ("store: [", "not YAML"),
        ("speed: 3\n", r"unknown settings \(speed\)"),
        ("applications: []\n", "not one application"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
    ],
)
def test_a_file_that_is_no_settings_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(InvalidSettings, match=message):
        read_settings_file(tmp_path / "s.yaml")
    with pytest.raises(InvalidSettings, match="cannot be read"):
        read_settings_file(tmp_path / "none.yaml")


def test_a_serve_config_and_what_tune_writes_are_read_alike(tmp_path: Path) -> None:
    values = {"store": "/data: #1", "candidates": 30, "stop_early": True, "score": "votes", "method": "ivf"}
    (tmp_path / "plain.yaml").write_text(settings_text({**values, "matching": None}, ["chosen\nby"]))
    text = "applications:\n  - name: placeray\n    args:\n"
    text += "".join(f"      {line}\n" for line in settings_text(values).splitlines())
    (tmp_path / "serve.yaml").write_text(text)
    for name in ("plain.yaml", "serve.yaml"):
        assert read_settings_file(tmp_path / name) == values
    assert settings_of(values).candidates == 30
