"""The training report: its numbers, and a page that stays valid with hostile names and values."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import escape
from PIL import Image
from playwright.sync_api import Request

from pipelines.evaluation.result import Evaluation, QueryOutcome
from pipelines.evaluation.sign_test import p_value_of
from pipelines.training.charts import MAX_POINTS
from pipelines.training.comparison import describe_change
from pipelines.training.report import EXAMPLES, write_training_report
from serving.answer import Match
from storage.errors import OutOfSpace
from storage.position import Position
from storage.records import ImageRecord
from tests.support.page_browser import contrast, launched, visiting

HOSTILE = "<script>alert('x')</script>&\"'"


def record(path: Path, east: float | None) -> ImageRecord:
    return ImageRecord(
        image_id=path.name,
        uri=str(path),
        sha256="0" * 64,
        width=8,
        height=8,
        position=Position(utm_e=east, utm_n=None if east is None else 0.0),
        heading_deg=None,
        captured_at=None,
        shard="s",
        row=0,
    )


def outcome(path: Path, answers: Sequence[tuple[Path, float | None, float, int]]) -> QueryOutcome:
    """Make the outcome of a query at 0 E 0 N; answers come re-ranked: photo, easting, similarity, matches."""
    matches = tuple(
        Match(rank, record(photo, east), similarity, count)
        for rank, (photo, east, similarity, count) in enumerate(answers, start=1)
    )
    right = [match.record.utm_e is not None and abs(match.record.utm_e) <= 25 for match in matches]
    by_similarity = sorted(range(len(matches)), key=lambda i: -matches[i].similarity)
    first_global = next((n for n, i in enumerate(by_similarity, start=1) if right[i]), None)
    first_reranked = next((n for n, hit in enumerate(right, start=1) if hit), None)
    return QueryOutcome(
        str(path), Position(utm_e=0.0, utm_n=0.0), None, 1, matches, first_global, first_reranked
    )


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
    {
        "kind": "validation",
        "epoch": "0",
        "step": "0",
        "recall_global_1": "50.0",
        "recall_reranked_1": "75.0",
        "recall_global_5": "80",
        "recall_reranked_5": "90",
    },
    {"kind": "step", "epoch": "0", "step": "10", "loss": "0.2", "triplet_loss": "0.15", "local_loss": ""},
    {"kind": "step", "epoch": "0", "step": "20", "loss": "nan", "triplet_loss": "0.1", "local_loss": "0.01"},
]


def test_gained_and_lost_queries_are_counted_and_listed(pair: tuple[Evaluation, Evaluation]) -> None:
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


def written(
    folder: Path, before: Evaluation, after: Evaluation, **options: Any
) -> tuple[dict[str, Any], str]:
    """Write a report and return it with its page."""
    options = {"rows": [], "settings": {}, "facts": {}} | options
    report = write_training_report(folder, before=before, after=after, **options)
    return report, (folder / "report.html").read_text()


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (5, 0), (9, 2), (3, 3), (40, 11)])
def test_p_value_equals_the_exact_binomial_test(gained: int, lost: int) -> None:
    total = gained + lost
    throws = [comb(total, heads) for heads in range(total + 1)]
    uneven = sum(ways for heads, ways in enumerate(throws) if abs(2 * heads - total) >= abs(gained - lost))
    assert p_value_of(gained, lost) == pytest.approx(uneven / 2**total)


def test_conditions_of_both_evaluations_are_shown(
    pair: tuple[Evaluation, Evaluation], tmp_path: Path
) -> None:
    conditions = [
        {
            "model": "tiny",
            "weights_sha256": digit * 64,
            "image_size": [56, 84],
            "descriptor_dim": 32,
            "features": "int8",
            "precision": "float32",
            "device": "cpu",
            "search": "exact",
            "score": "count",
            "min_similarity": 0.25,
            "candidates": 8,
            "matching": "every candidate",
            "threshold_m": 25.0,
            "distance": "geodesic",
            "store_version": 3,
            "store_format": 2,
            "versions": {"torch": "2.9"},
        }
        for digit in "12"
    ]
    before, after = (replace(one, conditions=values) for one, values in zip(pair, conditions, strict=True))
    report, page = written(tmp_path, before, after)
    assert report["conditions"] == {"before": conditions[0], "after": conditions[1]}
    for text in (
        "111111111111",
        "222222222222",
        "56x84",
        "8 candidates by count",
        "from similarity 0.25",
        "torch 2.9",
    ):
        assert text in page


def test_evaluations_of_different_queries_are_refused(
    pair: tuple[Evaluation, Evaluation], tmp_path: Path
) -> None:
    before, after = pair
    for outcomes in (after.outcomes[1:], after.outcomes[:3] + after.outcomes[:1]):
        with pytest.raises(ValueError, match="same ones"):
            written(tmp_path / "out", before, evaluation(list(outcomes), "trained"))
    assert not (tmp_path / "out").exists()


def test_the_order_of_queries_does_not_change_the_report(
    pair: tuple[Evaluation, Evaluation], tmp_path: Path
) -> None:
    before, after = pair
    turned = replace(after, outcomes=after.outcomes[::-1])
    assert written(tmp_path, before, turned)[0] == written(tmp_path, before, after)[0]


def test_report_json_is_strict_json_for_any_settings(
    pair: tuple[Evaluation, Evaluation], tmp_path: Path
) -> None:
    settings = {"seed": 0, "model": Path("a.safetensors"), "size": (112, 96), "flip": True, "none": None}
    facts = {
        "seconds": np.float32(3.5),
        "count": np.int64(7),
        "worst": float("inf"),
        5: np.array([1.0, np.nan]),
    }
    report, _ = written(tmp_path / "new" / "run", *pair, rows=ROWS, settings=settings, facts=facts)
    read = json.loads((tmp_path / "new" / "run" / "report.json").read_text(), parse_constant=pytest.fail)
    assert read == report
    assert read["curve"][1] == {"kind": "step", "epoch": 0, "step": 10, "loss": 0.2, "triplet_loss": 0.15}
    assert read["curve"][2]["loss"] is None
    assert read["settings"] == settings | {"model": "a.safetensors", "size": [112, 96]}
    assert read["facts"] == {"seconds": 3.5, "count": 7, "worst": None, "5": [1.0, None]}
    assert (read["queries"], read["database"]) == (4, 2)
    assert (read["model_before"], read["model_after"]) == ("plain", "trained")
    assert read["recall"]["before"]["global"]["1"] == 50.0
    assert read["recall"]["after"]["reranked"] == {"1": 100.0, "5": 100.0, "10": 100.0, "20": 100.0}


def test_query_without_an_answer_has_the_same_fields(
    pair: tuple[Evaluation, Evaluation], tmp_path: Path
) -> None:
    before = list(pair[0].outcomes)
    before[0] = replace(
        before[0], matches=(), rejected="trunc<ated", first_hit_global=None, first_hit_reranked=None
    )
    report, page = written(tmp_path, evaluation(before, "plain"), pair[1])
    example = next(one for one in report["gained"] if one["query"] == before[0].uri)
    assert example["before"].keys() - example["after"].keys() == {"reason"}
    assert {value for name, value in example["before"].items() if name != "reason"} == {None}
    assert "no answer: trunc&lt;ated" in page


@pytest.mark.parametrize("flushed", [0, 2])  # nothing, or report.json and its folder
def test_full_disk_leaves_the_earlier_report(
    pair: tuple[Evaluation, Evaluation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushed: int
) -> None:
    written(tmp_path, pair[0], pair[0])
    names = ("report.json", "report.html")
    old = {name: (tmp_path / name).read_bytes() for name in names}
    calls: list[int] = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > flushed:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OutOfSpace):
            written(tmp_path, *pair)
    unchanged = [name for name in names if (tmp_path / name).read_bytes() == old[name]]
    assert unchanged == (list(names) if not flushed else ["report.html"])
    written(tmp_path, *pair)
    assert all((tmp_path / name).read_bytes() != old[name] for name in names)
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*"))


def test_examples_show_distance_matches_similarity_and_rank(
    pair: tuple[Evaluation, Evaluation], tmp_path: Path
) -> None:
    _, page = written(tmp_path, *pair)
    assert "✗ wrong</span>, 500.0 m away, 50 mutual matches, similarity 0.900, first right at rank 2<" in page
    assert "✓ right</span>, 3.0 m away, 50 mutual matches, similarity 0.900<" in page
    nowhere = outcome(Path(pair[0].outcomes[1].uri), [(tmp_path / "far.png", None, 0.5, 7)])
    nowhere = replace(nowhere, matches=(replace(nowhere.matches[0], mutual_matches=None),))
    after = [evaluation([one], "m") for one in (nowhere, pair[1].outcomes[1])]
    caption = "✗ wrong</span>, place unknown, similarity 0.500, nothing right among the answers<"
    assert caption in written(tmp_path, *after)[1]


def heading(page: str) -> str:
    match = re.search("<h1>(.*?)</h1>", page)
    assert match
    return match[1]


def test_headline_describes_gain_loss_and_no_change(
    pair: tuple[Evaluation, Evaluation], tmp_path: Path
) -> None:
    before, after = pair
    assert "gained 25.0 points after re-ranking and gained 25.0" in heading(written(tmp_path, *pair)[1])
    _, page = written(tmp_path, after, before)
    assert "lost 25.0 points after re-ranking and lost 25.0 points by global" in heading(page)
    assert '<td class="wrong">−25.0</td>' in page
    _, page = written(tmp_path, before, before)
    assert "changed nothing" in heading(page)
    assert page.count("<p>No query.</p>") == 2
    # The second query becomes right and the first wrong: answers change, recall does not.
    photos = [Path(one.uri) for one in before.outcomes[:2]]
    hits, misses = [(photos[0], 3.0, 0.9, 9)], [(photos[1], 500.0, 0.9, 9)]
    ways = [
        evaluation([outcome(photos[i], (hits, misses)[i ^ turn]) for i in (0, 1)], "m") for turn in (0, 1)
    ]
    _, page = written(tmp_path, *ways)
    assert "as many went wrong as went right" in heading(page)
    deeper = [[(photos[1], 500.0, 0.9 - i / 100, 9)] * 6 + hits for i in (0, 1)]
    later = [evaluation([outcome(photos[0], deeper[0][cut:])], "m") for cut in (0, 4)]
    assert "only recall further down" in heading(written(tmp_path, *later)[1])
    small = replace(after, recall=before.recall | {"reranked": before.recall["reranked"] | {"1": 75.02}})
    assert "gained 0.02 points after re-ranking and held level by global" in heading(
        written(tmp_path, before, small)[1]
    )


def test_page_states_significance(pair: tuple[Evaluation, Evaluation], tmp_path: Path) -> None:
    wrong, right = pair[0].outcomes[1], pair[1].outcomes[1]
    for count, verdict in ((6, "0.031: more than chance"), (5, "0.062: this may be mere chance")):
        ways = [
            evaluation([replace(one, uri=f"{i}.jpg") for i in range(count)], "m") for one in (wrong, right)
        ]
        assert written(tmp_path, *ways)[1].count(verdict) == 2


def drawn(page: str) -> list[list[tuple[float, float]]]:
    """Return the points of every line of the page."""
    lines = re.findall(r'<polyline points="([^"]*)"', page)
    return [[(float(x), float(y)) for x, y in (at.split(",") for at in line.split())] for line in lines]


def test_curves_keep_peaks_for_any_number_of_rows(
    pair: tuple[Evaluation, Evaluation], tmp_path: Path
) -> None:
    _, page = written(tmp_path, *pair)
    assert page.count("nothing was logged") == 2
    odd: list[dict[str, Any]] = [
        {"kind": "step", "triplet_loss": "1"},
        {"kind": "step", "step": "1", "loss": "inf"},
    ]
    odd.append({"kind": "step", "step": "2", "loss": None})
    assert written(tmp_path, *pair, rows=odd)[1].count("nothing was logged") == 2

    _, page = written(tmp_path, *pair, rows=[{"kind": "step", "step": 0, "local_loss": 0}])
    assert (len(drawn(page)), len(drawn(page)[0]), page.count("<circle")) == (1, 1, 1)

    seed = 5
    noise = np.random.default_rng(seed).uniform(0.2, 0.3, 10_000)
    noise[[4_001, 7_000]] = 0.9, 0.0
    noise[-200:] = [0.3, 0.2] * 99 + [0.24, 0.25]
    many = [{"kind": "step", "step": str(i), "triplet_loss": f"{y:.5f}"} for i, y in enumerate(noise)]
    _, page = written(tmp_path, *pair, rows=many)
    (line,) = drawn(page)
    assert MAX_POINTS // 2 < len(line) <= MAX_POINTS, f"seed {seed}"
    ranks = sorted(line, key=lambda at: at[1])
    assert ranks[0][1] < 0.8 * ranks[1][1], f"the one peak is lost, seed {seed}"
    # The axes run to 10,000 steps and from 0 to 1, and the line to the last step.
    assert line[-1][0] == 472.0, f"the last step is lost, seed {seed}"
    assert re.findall(r">([\d,.]+)</text>", page) == [
        *("0", "0.2", "0.4", "0.6", "0.8", "1"),
        *("0", "2,000", "4,000", "6,000", "8,000", "10,000"),
    ]
    lowest = ranks[-1][1]
    assert (lowest - ranks[0][1]) / (lowest - line[0][1]) == pytest.approx(0.9 / noise[0], rel=0.01)


@pytest.mark.parametrize("value", [1e-300, 1e98, -1e98, -0.2, 0.0, 5.0, 1e-12])
def test_curves_stay_within_the_view_box(
    pair: tuple[Evaluation, Evaluation], tmp_path: Path, value: float
) -> None:
    rows = [{"kind": "step", "step": i, "triplet_loss": value * i} for i in range(2)]
    (line,) = drawn(written(tmp_path, *pair, rows=rows)[1])
    assert all(0 <= x <= 500 and 0 <= y <= 260 for x, y in line)
    assert (line[0][1] != line[1][1]) is bool(value)


def test_examples_beyond_the_limit_are_counted_only(
    pair: tuple[Evaluation, Evaluation], tmp_path: Path
) -> None:
    wrong, right = pair[0].outcomes[1], pair[1].outcomes[1]
    ways = [evaluation([replace(one, uri=f"{i}.jpg") for i in range(30)], "m") for one in (wrong, right)]
    report, page = written(tmp_path, *ways)
    assert len(report["gained"]) == 60
    assert page.count(f"({EXAMPLES} of 30 shown)") == 2
    assert page.count('<div class="three">') == 2 * EXAMPLES


def test_unreadable_photo_shows_the_reason(pair: tuple[Evaluation, Evaluation], tmp_path: Path) -> None:
    (tmp_path / "far.png").unlink()
    (tmp_path / "near.png").write_bytes((tmp_path / "near.png").read_bytes()[:60])
    (tmp_path / "q1.png").write_bytes(b"hello")
    _, page = written(tmp_path / "out", *pair)
    assert "first answer before: <bdi>far.png</bdi> cannot be shown: no such file" in page
    assert "first answer after: <bdi>near.png</bdi> cannot be shown: the PNG file is cut off" in page
    assert "query: <bdi>q1.png</bdi> cannot be shown: " in page
    assert page.count("<img") == 1  # q2


def test_page_escapes_hostile_text(pair: tuple[Evaluation, Evaluation], tmp_path: Path) -> None:
    hostile = {"settings": {HOSTILE: {HOSTILE: [HOSTILE]}}, "facts": {HOSTILE: HOSTILE}}
    no_text = [replace(one, outcomes=(replace(one.outcomes[1], uri="q\udcff"),)) for one in pair]
    for before, after in (pair, (pair[1], pair[0]), no_text):
        rows = [{"kind": HOSTILE, "step": HOSTILE, "loss": HOSTILE, HOSTILE: HOSTILE}]
        before, after = (replace(one, model=HOSTILE, protocol=HOSTILE) for one in (before, after))
        _, page = written(tmp_path / "out", before, after, rows=rows, **hostile)
        assert "<script" not in page
        assert page.count(escape(HOSTILE)) >= 9
    hostile_name = escape(Path(pair[0].outcomes[3].uri).name)
    assert hostile_name in written(tmp_path / "out", *pair)[1]


@pytest.mark.browser
def test_page_renders_readably_in_both_colour_schemes(
    pair: tuple[Evaluation, Evaluation], tmp_path: Path
) -> None:
    written(tmp_path, *pair, rows=ROWS, settings={"run": HOSTILE}, facts={HOSTILE: 1})
    with launched() as browser:
        for scheme in ("light", "dark"):
            with visiting(browser, color_scheme=scheme, width=360) as visit:
                urls: list[str] = []

                def record_url(request: Request, urls: list[str] = urls) -> None:
                    urls.append(request.url)

                visit.page.on("request", record_url)
                visit.page.goto((tmp_path / "report.html").as_uri())
                for part in ("h1", "p.soft", "td.right", "small .wrong", "small .right", ".none", "thead th"):
                    assert contrast(visit.page, part) >= 4.5, (scheme, part)
                assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360
                assert [url for url in urls if not url.startswith(("file:", "data:"))] == []
                assert urls[0].startswith("file:")
                assert visit.complaints == []
                look_at(visit.page)


def look_at(page: Any) -> None:
    """Check what the page shows, whatever the colours."""
    assert page.locator("h1").inner_text().startswith("Fine-tuning gained")
    rows = page.locator("table").first.locator("tbody tr")
    assert rows.count() == 6
    assert rows.nth(2).inner_text().split("\t")[:3] == ["global descriptor, gain", "+25.0", "0.0"]
    assert page.locator("script").count() == 0
    assert page.locator(".three img").count() == 11
    assert page.locator(".three .none").count() == 1  # the query without a file
    assert page.evaluate("[...document.images].filter(i => i.naturalWidth === 0 || !i.alt).length") == 0
    assert page.locator("polyline").count() == 7
    # Each line of a chart has a colour and dashes of its own, and its legend has the same.
    kinds = """(all) => all.map((one) => [one.getAttribute("stroke"), one.getAttribute("stroke-dasharray")]
      .join())"""
    for chart in page.locator(".curves figure").all():
        of_lines = chart.locator("polyline").evaluate_all(kinds)
        assert of_lines == chart.locator(".legend svg path").evaluate_all(kinds)
        assert len(set(of_lines)) == len(of_lines) > 1
    levels = page.eval_on_selector_all("h1, h2, h3", "all => all.map(one => one.tagName).join(' ')")
    assert levels == "H1 H2 H2 H2 H3 H3 H2 H3 H2 H2"
