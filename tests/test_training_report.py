"""The report of a training run: right numbers, and a page that holds whatever a stranger may choose."""

from __future__ import annotations

import json
from math import comb
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.recall import Evaluation, QueryOutcome
from pipelines.training_change import chance_of, describe_change
from pipelines.training_report import write_training_report
from storage.records import ImageRecord, Match
from tests.page_browser import launched

HOSTILE = "<script>alert('x')</script>&\"'"


def record(path: Path, east: float | None) -> ImageRecord:
    return ImageRecord(
        image_id=path.name,
        uri=str(path),
        sha256="0" * 64,
        width=8,
        height=8,
        lat=None,
        lon=None,
        utm_e=east,
        utm_n=None if east is None else 0.0,
        utm_zone=None,
        heading_deg=None,
        captured_at=None,
        shard="s",
        row=0,
    )


def outcome(path: Path, answers: list[tuple[Path, float | None, float, int]]) -> QueryOutcome:
    """Make the outcome of a query at 0 E 0 N; answers come re-ranked: photo, easting, similarity, matches."""
    matches = tuple(
        Match(rank, record(photo, east), similarity, count)
        for rank, (photo, east, similarity, count) in enumerate(answers, start=1)
    )
    right = [match.record.utm_e is not None and abs(match.record.utm_e) <= 25 for match in matches]
    by_similarity = sorted(range(len(matches)), key=lambda i: -matches[i].similarity)
    first_global = next((n for n, i in enumerate(by_similarity, start=1) if right[i]), None)
    first_reranked = next((n for n, hit in enumerate(right, start=1) if hit), None)
    return QueryOutcome(str(path), 0.0, 0.0, None, None, 1, matches, first_global, first_reranked)


def evaluation(outcomes: list[QueryOutcome], model: str) -> Evaluation:
    def recall(hits: list[int | None]) -> dict[str, float]:
        return {
            str(k): 100.0 * sum(hit is not None and hit <= k for hit in hits) / len(hits)
            for k in (1, 5, 10, 20)
        }

    return Evaluation(
        dataset="city" + HOSTILE,
        protocol="25 m",
        model=model,
        store_version=1,
        queries=len(outcomes),
        database=2,
        recall={
            "global": recall([one.first_hit_global for one in outcomes]),
            "reranked": recall([one.first_hit_reranked for one in outcomes]),
        },
        seconds={},
        queries_without_positive=0,
        queries_without_coordinates=0,
        queries_rejected=0,
        database_without_coordinates=0,
        degraded=0,
        outcomes=tuple(outcomes),
    )


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Evaluation, Evaluation]:
    """Of four queries re-ranking gains one and loses none; global gains two and loses one."""
    photos = {}
    for name, colour in (("near", "green"), ("far", "red"), ("q0", "blue"), ("q1", "navy"), ("q2", "teal")):
        photos[name] = tmp_path / f"{name}.png"
        Image.new("RGB", (40, 30), colour).save(photos[name])
    photos["q3"] = tmp_path / f"q3{HOSTILE.replace('/', '')}.png"
    near, far = photos["near"], photos["far"]
    near_first = [(near, 3.0, 0.9, 50), (far, 500.0, 0.8, 20)]
    far_first = [(far, 500.0, 0.9, 50), (near, 3.0, 0.8, 20)]
    near_rescued = [(near, 3.0, 0.7, 50), (far, 500.0, 0.8, 20)]
    before = [near_first, far_first, near_rescued, near_first]
    after = [near_first, near_first, near_first, near_rescued]
    return tuple(  # type: ignore[return-value]
        evaluation([outcome(photos[f"q{i}"], answers) for i, answers in enumerate(every)], name)
        for name, every in (("plain", before), ("trained", after))
    )


ROWS: list[dict[str, Any]] = [
    {"kind": "validation", "epoch": "0", "step": "0", "recall_global_1": "50.0", "recall_reranked_1": "75.0"},
    {"kind": "step", "epoch": "0", "step": "10", "loss": "0.2", "triplet_loss": "0.15", "local_loss": ""},
    {"kind": "step", "epoch": "0", "step": "20", "loss": "nan", "triplet_loss": "0.1", "local_loss": "0.01"},
]


def test_gained_and_lost_are_counted_and_named(pair: tuple[Evaluation, Evaluation]) -> None:
    change = describe_change(*pair)
    assert change["recall"]["gain"]["reranked"]["1"] == 25.0
    assert change["recall"]["gain"]["global"]["1"] == 25.0
    assert change["changed"] == {
        "global": {"gained": 2, "lost": 1, "p_value": 1.0},
        "reranked": {"gained": 1, "lost": 0, "p_value": 1.0},
    }
    assert [(one["stage"], Path(one["query"]).name) for one in change["gained"]] == [
        ("reranked", "q1.png"),
        ("global", "q1.png"),
        ("global", "q2.png"),
    ]
    first = change["gained"][0]
    assert (first["before"]["distance_m"], first["after"]["distance_m"]) == (500.0, 3.0)
    assert (first["before"]["rank_of_first_right"], first["after"]["mutual_matches"]) == (2, 50)
    lost = change["lost"][0]
    assert lost["stage"] == "global"
    assert Path(lost["after"]["uri"]).name == "far.png"


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (5, 0), (9, 2), (3, 3), (40, 11)])
def test_chance_is_the_share_of_coin_throws_at_least_so_uneven(gained: int, lost: int) -> None:
    total = gained + lost
    throws = [comb(total, heads) for heads in range(total + 1)]
    uneven = sum(ways for heads, ways in enumerate(throws) if abs(2 * heads - total) >= abs(gained - lost))
    assert chance_of(gained, lost) == pytest.approx(uneven / 2**total)


def test_other_queries_are_refused(pair: tuple[Evaluation, Evaluation]) -> None:
    before, after = pair
    other = evaluation(list(after.outcomes[1:]), "trained")
    with pytest.raises(ValueError, match="same ones"):
        describe_change(before, other)


def test_the_json_is_strict_and_whole(pair: tuple[Evaluation, Evaluation], tmp_path: Path) -> None:
    told = write_training_report(
        tmp_path, before=pair[0], after=pair[1], rows=ROWS, settings={"seed": 0}, facts={"seconds": 3.5}
    )
    read = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert read == told
    assert read["curve"][1] == {"kind": "step", "epoch": 0, "step": 10, "loss": 0.2, "triplet_loss": 0.15}
    assert read["curve"][2]["loss"] is None
    assert read["settings"] == {"seed": 0}
    assert not list(tmp_path.glob("*.tmp"))


def test_the_page_says_it_and_runs_nothing(pair: tuple[Evaluation, Evaluation], tmp_path: Path) -> None:
    write_training_report(
        tmp_path, before=pair[0], after=pair[1], rows=ROWS, settings={"run": HOSTILE}, facts={HOSTILE: 1}
    )
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "gained 25.0 points by global descriptor and gained 25.0 points after re-ranking" in page
    with launched() as browser:
        tab = browser.new_page()
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto((tmp_path / "report.html").as_uri())
        assert tab.locator("h1").inner_text().startswith("R@1 gained")
        rows = tab.locator("table").first.locator("tbody tr")
        assert rows.count() == 6
        assert rows.nth(2).inner_text().split("\t")[:2] == ["global descriptor, gain", "+25.0"]
        assert tab.locator(".three img").count() >= 9
        assert tab.locator(".three .none").count() == 1  # the query that is no file
        assert tab.locator("polyline").count() == 5
        broken = tab.evaluate("[...document.images].filter(i => i.naturalWidth === 0).length")
        assert broken == 0
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert not list(tmp_path.glob("*.tmp"))


def test_a_run_without_rows_or_change_has_a_page_too(
    pair: tuple[Evaluation, Evaluation], tmp_path: Path
) -> None:
    write_training_report(tmp_path, before=pair[0], after=pair[0], rows=[], settings={}, facts={})
    page = (tmp_path / "report.html").read_text()
    assert "Training changed nothing at the first answer" in page
    assert page.count("nothing was logged") == 2
    assert page.count("No query.") == 2
    many = [{"kind": "step", "step": str(i), "triplet_loss": "0.1"} for i in range(10_000)]
    write_training_report(tmp_path, before=pair[1], after=pair[0], rows=many, settings={}, facts={})
    page = (tmp_path / "report.html").read_text()
    assert "lost 25.0 points" in page
    assert len(page) < 200_000
