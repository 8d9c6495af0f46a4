from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import bench_drives, bench_index, bench_known, bench_places
from pipelines.calibration.labelled import Labelled

CITY = {"queries": 80}
CORRIDOR = {"queries": 111}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Return a function that runs a benchmark over former results and returns what is there then."""
    out = tmp_path / "results.json"

    def run(module: Any, former: dict[str, Any], *arguments: str) -> dict[str, Any]:
        out.write_text(json.dumps(former | {"command": "former"}))
        given = ["--out", str(out), "--scratch", str(tmp_path), *arguments]
        monkeypatch.setattr(sys, "argv", ["benchmark", *given])
        module.main()
        found: dict[str, Any] = json.loads(out.read_text())
        assert found.pop("command") != "former"
        del found["machine"]
        return found

    return run


def test_positions_of_cities_and_of_a_data_set_stay_beside_each_other(run, monkeypatch) -> None:
    monkeypatch.setattr(bench_places, "draw_city", lambda *args, **values: None)
    monkeypatch.setattr(bench_places, "measure", lambda dataset, uri: {"of": dataset.name})
    former = {"city-7-10": CITY, "corridor": CORRIDOR}
    cities = run(bench_places, former, "--seeds", "0", "--spacings", "5")
    assert cities == {"corridor": CORRIDOR, "city-0-5": {"of": "city-0-5"}}
    corridor = run(bench_places, former, "--dataset", "corridor")
    assert corridor == {"city-7-10": CITY, "corridor": {"of": "corridor"}}


def test_drives_of_cities_and_of_a_data_set_stay_beside_each_other(run, monkeypatch) -> None:
    class Drive:
        def __init__(self, scratch: Path, of: object) -> None:
            self.name = str(of)

    monkeypatch.setattr(bench_drives, "drawn", Drive)
    monkeypatch.setattr(bench_drives, "photographed", Drive)
    monkeypatch.setattr(bench_drives, "measure", lambda drive: {"of": drive.name})
    former = {"hard:9:night": CITY, "corridor": CORRIDOR}
    cities = run(bench_drives, former)
    assert cities == {"corridor": CORRIDOR} | {name: {"of": name} for name in bench_drives.SETS}
    corridor = run(bench_drives, former, "--dataset", "corridor")
    assert corridor == {"hard:9:night": CITY, "corridor": {"of": "corridor"}}


def test_promises_of_cities_and_of_a_data_set_stay_beside_each_other(run, monkeypatch) -> None:
    monkeypatch.setattr(bench_known, "answered", lambda scratch, cities: (labelled(280), 84))
    monkeypatch.setattr(bench_known, "answered_by", lambda dataset, uri, elsewhere: (labelled(140), 35))
    monkeypatch.setattr(bench_known, "SPLITS", 3)
    cities = run(bench_known, {"photos": 1, "corridor": CORRIDOR})
    assert (cities["photos"], cities["unknown_share"], cities["corridor"]) == (280, 30.0, CORRIDOR)
    corridor = run(bench_known, {"photos": 1}, "--dataset", "corridor", "--elsewhere", "tower")
    assert corridor["photos"] == 1
    assert (corridor["corridor"]["photos"], corridor["corridor"]["unknown_share"]) == (140, 25.0)
    assert corridor["corridor"]["levels"]["20 %"]["promised_in"] == 3
    with pytest.raises(SystemExit):
        run(bench_known, {}, "--dataset", "corridor")


def test_photos_of_elsewhere_are_their_share_and_spread_over_the_list() -> None:
    count = bench_known.unknown_for(111)
    assert count / (111 + count) == pytest.approx(bench_known.UNKNOWN_SHARE, abs=0.005)
    uris = [f"{number}.jpg" for number in range(420)]
    chosen = [uris.index(uri) for uri in bench_known.spread(uris, count)]
    assert (len(chosen), chosen[0], chosen[-1]) == (count, 0, 419)
    assert set(np.diff(chosen)) <= {8, 9, 10}
    assert bench_known.spread(uris, 1000) == uris


def labelled(count: int) -> Labelled:
    """Return answers of which the 30 % with the smallest leads are wrong."""
    signs = np.linspace(-1, 1, count)[:, None] * np.ones((1, 6))
    right = np.arange(count) >= 0.3 * count
    uris = tuple(f"{number}.jpg" for number in range(count))
    return Labelled(uris, signs, right, np.where(right, 3.0, 300.0), np.arange(count))


def test_measuring_the_index_keeps_what_learning_costs(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    out.write_text(json.dumps({"learning": {"results": [0.95]}, "results": ["former"]}))
    bench_index.report([], out)
    found = json.loads(out.read_text())
    assert found["learning"] == {"results": [0.95]}
    assert found["results"] == []
