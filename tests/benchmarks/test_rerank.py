"""Rules of re-ranking are judged on queries and sets that they were not found on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import bench_rerank, rerank_judging
from benchmarks.rerank_judging import across, allowed, halves, judged, splits, summary
from benchmarks.rerank_sets import folder_of, tower_frames
from pipelines.calibration.rerank_trials import BLENDS, Trials
from serving.places.rerank_rule import RerankRule


def trials(before: list[int], after: list[int], margins: list[float] | None = None) -> Trials:
    """Return queries of a place each, the same with every blend."""
    count = len(before)
    right = np.array([before, *[after] * len(BLENDS)], bool)
    return Trials(
        np.array(margins or [0.0] * count),
        np.zeros((1 + len(BLENDS), count), np.int64),
        right,
        np.full(count, 50),
        np.arange(count),
    )


def test_a_rule_is_held_against_the_better_of_always_and_never() -> None:
    queries = trials([1, 1, 0, 0], [0, 1, 1, 1], [0.9, 0.1, 0.1, 0.1])
    below = judged(RerankRule("below", margin=0.5), queries)
    assert (below["never"], below["always"], below["auto"], below["below"]) == (2, 3, 4, -1)
    assert (below["left_out"], below["matched"], below["matched_always"]) == (1, 150, 200)
    assert judged(RerankRule("none"), queries)["below"] == 1
    assert judged(RerankRule("all"), queries)["below"] == 0


def test_the_bar_is_one_query_or_three_tenths_of_a_point() -> None:
    assert [allowed(count) for count in (30, 333, 1000)] == [1.0, 1.0, 3.0]


def test_no_place_is_on_both_sides_of_a_split() -> None:
    places = np.repeat(np.arange(11), 4)
    one, other = halves(places, 3)
    assert not set(places[one]) & set(places[other])
    assert sorted([*one, *other]) == list(range(44))
    assert halves(places, 3)[0].tolist() == one.tolist()
    assert halves(places, 4)[0].tolist() != one.tolist()


def test_figures_over_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerank_judging, "SPLITS", 5)
    harmed = splits("harmed", trials([1] * 40, [0] * 30 + [1] * 10))
    assert harmed["modes"] == {"none": 10}
    assert (harmed["never"], harmed["auto"], harmed["matched"]) == (100.0, 100.0, 0.0)
    assert (harmed["always"], harmed["matched_always"], harmed["bar_kept_percent"]) == (25.0, 50.0, 100.0)
    even = splits("even", trials([1, 0] * 20, [0, 1] * 20))
    assert even["modes"] == {"all": 10}  # as the model does by default
    assert even["always_kept_percent"] == even["bar_kept_percent"]


def test_a_rule_that_loses_elsewhere_is_seen() -> None:
    source = trials([1] * 40, [1] * 40, [0.5] * 40)
    other = trials([0] * 3 + [1] * 37, [1] * 40, [0.5] * 40)
    lost = across("source -> other", source, other)
    assert lost["rule"]["mode"] == "below"
    assert (lost["below_most_queries"], lost["below_points"], lost["bar_kept_percent"]) == (3, 7.5, 0.0)
    kept = across("other -> source", other, source)
    figures = summary({"a -> b": lost, "b -> a": kept}, " -> ")
    assert figures["across"]["worst"] == "a -> b"
    assert (figures["across"]["worst_below_points"], figures["across"]["bar_kept_percent"]) == (7.5, 50.0)
    assert "split" not in figures


def test_frames_of_the_tower_do_not_ask_for_their_neighbours(tmp_path: Path) -> None:
    for video, floor, count in (("b0_a", "basement0", 20), ("f22_central_main", "floor22", 5)):
        (tmp_path / floor).mkdir()
        for number in range(1, count + 1):
            (tmp_path / floor / f"{video}_frame_{number:06d}.jpg").write_bytes(f"{video}{number}".encode())
    (tmp_path / "basement0" / "b0_again_frame_000001.jpg").write_bytes(b"b0_a1")
    frames = tower_frames(tmp_path)
    east = {
        side: sorted(float(name.split("@")[1]) for of, name in frames if of == side and "b0" in name)
        for side in ("queries", "database")
    }
    assert len(frames) == len(east["queries"]) + len(east["database"]) == 4 + 8
    apart = np.abs(np.subtract.outer(east["queries"], east["database"]))
    assert apart.min() == 10.0
    assert (apart <= 25.0).any(axis=1).all()


def test_sets_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"corridor-back"):
        folder_of("corridor", tmp_path)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs the benchmark with made answers over former results."""
    queries = trials([1, 0] * 20, [1, 1] * 20)

    def tried(name: str, scratch: Path, photos: Path | None = None) -> SimpleNamespace:
        return SimpleNamespace(name=name, trials=queries, candidates=50, database=240)

    monkeypatch.setattr(bench_rerank, "tried_on", tried)
    monkeypatch.setattr(bench_rerank, "measure_engine", lambda one: {"of": one.name})
    monkeypatch.setattr(rerank_judging, "SPLITS", 2)

    def run(former: dict[str, Any], *arguments: str) -> dict[str, Any]:
        out = tmp_path / "results.json"
        out.write_text(json.dumps(former))
        monkeypatch.setattr(
            sys, "argv", ["bench_rerank", "--out", str(out), "--scratch", str(tmp_path), *arguments]
        )
        bench_rerank.main()
        found: dict[str, Any] = json.loads(out.read_text())
        return found

    return run


def test_cities_and_photos_stay_beside_each_other(run) -> None:
    former = {"corridor": 1, "hard-0 -> tower": 2, "photos": 3, "city-9": 4, "city-9 -> hard-0": 5}
    cities = run(former)
    assert (cities["corridor"], cities["hard-0 -> tower"], cities["photos"]) == (1, 2, 3)
    assert not {"city-9", "city-9 -> hard-0"} & set(cities)
    assert cities["hard-1"]["engine"] == {"of": "hard-1"}
    assert cities["cities"]["split"]["sets"] == len(bench_rerank.CITIES)
    both = run(cities, "--photos", "folder")
    assert both["hard-1"] == cities["hard-1"]
    assert {"corridor -> hard-0", "hard-0 -> corridor", "tower -> corridor"} <= set(both)
    assert both["corridor"]["always"] == 100.0
    assert both["cities"] == cities["cities"]


def test_sets_measured_alone_keep_the_others(run) -> None:
    former = run({}, "--sets", "hard-0", "city-0")
    former["city-0"]["never"] = former["hard-0"]["never"] = 12.3
    found = run(former, "--sets", "hard-0")
    assert (found["city-0"]["never"], found["hard-0"]["never"]) == (12.3, 50.0)
    assert found["cities"]["split"]["sets"] == 2
