"""Comparing two evaluations: paired differences, tests, photos won and lost, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser

import placeray
from pipelines.cli import main
from pipelines.evaluation.comparison import NotComparable, compare
from pipelines.evaluation.comparison_page import comparison_lines, write_comparison
from pipelines.evaluation.query_table import query_table, write_query_table
from pipelines.evaluation.result import Evaluation
from pipelines.sources import SourceError
from tests.support.made_evaluations import make_evaluation, make_outcome

RIGHT, WRONG = [5.0, 90.0], [90.0, 5.0]


def made(hits: list[bool], *, per_place: int = 1, folder: str = "/q", **changed: Any) -> Evaluation:
    outcomes = [
        make_outcome(i, RIGHT if hit else WRONG, cluster=i // per_place, folder=folder)
        for i, hit in enumerate(hits)
    ]
    return make_evaluation(outcomes, **changed)


def test_differences_are_paired_photo_by_photo() -> None:
    first = made([True] * 40 + [False] * 20)
    second = made([True] * 38 + [False] * 2 + [True] * 12 + [False] * 8)
    comparison = compare(first, second)
    at_1 = comparison["differences"]["final"]["1"]
    assert (at_1["first"], at_1["second"], at_1["difference"]) == (66.67, 83.33, 16.67)
    assert (at_1["won"], at_1["lost"], at_1["places_won"], at_1["places_lost"]) == (12, 2, 12, 2)
    assert at_1["p_value"] == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    low, high = at_1["interval"]
    assert 2 < low < 16.67 < high < 31
    assert [row["query"] for row in comparison.lost] == ["/q/38.jpg", "/q/39.jpg"]
    assert comparison.won[0]["first"]["error_m"] == 90.0
    assert comparison.differences["global"]["1"]["difference"] == -16.67, "the opposite order"
    # None of 60 places differs at five answers, of which others differ: Clopper and Pearson's bound.
    reach = round(100 * (1 - 0.025 ** (1 / 60)), 2)
    assert comparison.differences["final"]["5"]["interval"] == [-reach, reach]
    json.dumps(dict(comparison), allow_nan=False)
    frame = comparison.to_pandas()
    assert (frame["first_hit_reranked_first"] == 1).sum() == 40
    assert "16.7 points" in repr(comparison)
    assert not [line for line in comparison_lines(comparison) if "too few" in line]
    few = compare(made([True] * 8), made([False] * 8))
    assert "8 places are too few for trustworthy intervals: at least 20 are needed." in comparison_lines(few)
    assert "<td>12</td>" in comparison._repr_html_()


def test_on_a_phone_figures_stay_on_one_line_beside_their_names(browser: Browser, tmp_path: Path) -> None:
    write_comparison(tmp_path, compare(made([True] * 30 + [False] * 10), made([True] * 40)))
    page = browser.new_page(viewport={"width": 390, "height": 800})
    try:
        page.goto((tmp_path / "comparison.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        table = page.locator(".wide").first
        cells = table.locator("tbody tr").first.locator("td")
        line_px = cells.nth(4).evaluate("cell => parseFloat(getComputedStyle(cell).lineHeight)")
        text_px = cells.nth(4).evaluate(
            "cell => { const all = document.createRange(); all.selectNodeContents(cell);"
            " return all.getBoundingClientRect().height }"
        )
        assert text_px <= line_px, "the interval is on one line"
        left_px = cells.nth(0).evaluate("cell => cell.getBoundingClientRect().left")
        assert table.evaluate("box => { box.scrollLeft = 200; return box.scrollLeft }") == 200
        assert cells.nth(0).evaluate("cell => cell.getBoundingClientRect().left") == left_px
    finally:
        page.close()


def test_the_same_answers_differ_by_nothing() -> None:
    hits = [True] * 30 + [False] * 10
    for depths in compare(made(hits), made(hits)).differences.values():
        assert {tuple(at["interval"]) for at in depths.values()} == {(0.0, 0.0)}
    # The same recall by other answers is not the same model.
    others = make_evaluation([make_outcome(i, [7.0, 90.0] if hit else WRONG) for i, hit in enumerate(hits)])
    low, high = compare(made(hits), others).differences["final"]["1"]["interval"]
    assert (low, high) == pytest.approx((-8.81, 8.81))


def test_photos_of_one_place_are_one_sign() -> None:
    first, second = made([False] * 60, per_place=10), made([True] * 60, per_place=10)
    at_1 = compare(first, second).differences["final"]["1"]
    assert (at_1["won"], at_1["places_won"]) == (60, 6)
    assert at_1["p_value"] == pytest.approx(2 / 2**6)
    assert at_1["p_value_of_photos"] < 1e-15


def test_queries_are_found_by_their_content_wherever_they_lie() -> None:
    second = made([True, False, True], folder="/elsewhere")
    shuffled = make_evaluation(second.outcomes[::-1])
    comparison = compare(made([True, False, False]), shuffled)
    assert [row["query"] for row in comparison.won] == ["/q/2.jpg"]
    assert comparison.lost == []


def test_other_queries_and_other_rules_are_refused() -> None:
    with pytest.raises(NotComparable, match=r"3 queries and the second 2, of which 2 are the same"):
        compare(made([True] * 3), made([True] * 2))
    ten = make_evaluation(made([True] * 3).outcomes)
    ten.conditions["threshold_m"] = 10.0  # type: ignore[index]
    with pytest.raises(NotComparable, match="by one protocol"):
        compare(made([True] * 3), ten)


def written(folder: Path, evaluation: Evaluation) -> Path:
    folder.mkdir()
    write_query_table(folder, query_table(evaluation.outcomes, dict(evaluation)))
    return folder


def test_the_verb_reads_folders_and_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = written(tmp_path / "a", made([True] * 40 + [False] * 20, model="<b>old</b>"))
    second = written(tmp_path / "b", made([True] * 60))
    assert main(["compare", str(first), str(second), "--report", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "+33.3" in shown
    assert "won: /q/40.jpg" in shown
    page = (tmp_path / "out/comparison.html").read_text()
    assert "+33.3 points at the first answer" in page
    assert "&lt;b&gt;old&lt;/b&gt;" in page
    assert "<b>old" not in page
    assert "://" not in page
    assert main(["compare", str(first), str(second), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values == json.loads((tmp_path / "out/comparison.json").read_text())
    assert values["differences"]["final"]["1"]["won"] == 20
    assert placeray.compare(first, second / "queries.parquet").differences == values["differences"]


def test_a_folder_without_an_evaluation_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = written(tmp_path / "good", made([True] * 3))
    (tmp_path / "none").mkdir()
    assert main(["compare", str(good), str(tmp_path / "none")]) == 2
    assert "--predictions DIR" in capsys.readouterr().err
    for content in (b"", b"PAR1 nothing", None):
        path = tmp_path / "queries.parquet"
        if content is None:
            pq.write_table(pq.read_table(good / "queries.parquet").replace_schema_metadata({}), path)
        else:
            path.write_bytes(content)
        with pytest.raises(SourceError, match="not the query table"):
            compare(good, path)


def test_plot_shows_both_orders() -> None:
    pytest.importorskip("matplotlib")
    figure = compare(made([True] * 9 + [False] * 9), made([True] * 18)).plot()
    assert len(figure.axes[0].lines) == 3


def test_all_photos_are_counted_where_the_lists_are_cut(tmp_path: Path) -> None:
    comparison = compare(made([False] * 260 + [True]), made([True] * 260 + [False]))
    assert (len(comparison.won), comparison["won_listed"], comparison["lost_listed"]) == (200, 200, 1)
    assert comparison.differences["final"]["1"]["won"] == 260
    lines = list(comparison_lines(comparison))
    assert "won: 248 more" in lines
    assert len([line for line in lines if line.startswith("won: /q/")]) == 12
    assert not [line for line in lines if line.startswith("lost: ") and line.endswith("more")]
    write_comparison(tmp_path, comparison)
    page = (tmp_path / "comparison.html").read_text()
    assert "Won: 260 photos" in page
    assert "The first 12." in page
    assert "Lost: 1 photo<" in page


def test_what_both_have_in_common_is_shown_too(tmp_path: Path) -> None:
    second = make_evaluation(made([True] * 3).outcomes)
    changed = {"resize": "opencv", "versions": {"placeray": "0.2.0", "torch": "9.9"}}
    second = make_evaluation(second.outcomes, conditions={**second.conditions, **changed})
    comparison = compare(made([True, False, True]), second)
    assert set(comparison.conditions) == set(changed)
    assert comparison.shared["protocol"] == "metres:25"
    assert not set(comparison.shared) & set(changed)
    lines = list(comparison_lines(comparison))
    for name, value in (
        ("protocol", "metres:25"),
        ("dataset_sha256", "1" * 64),
        ("image_size", "[224, 224]"),
        ("versions, placeray", "0.2.0"),
    ):
        assert f"both: {name}: {value}" in lines
    assert "differs: resize: pil_bilinear and opencv" in lines
    assert "differs: versions, torch: none and 9.9" in lines
    same = compare(made([True] * 3), made([True] * 3))
    assert "both: resize: pil_bilinear" in comparison_lines(same)
    write_comparison(tmp_path, comparison)
    page = (tmp_path / "comparison.html").read_text()
    for text in (
        "Conditions of both",
        "metres:25",
        "1" * 64,
        "[224, 224]",
        "versions, torch",
        "pil_bilinear",
    ):
        assert text in page


def test_arrays_have_a_row_per_evaluation() -> None:
    first, second = made([True, False, True, False]), made([True, True, False, False])
    arrays = compare(first, second).arrays
    assert arrays.queries.tolist() == [f"/q/{i}.jpg" for i in range(4)]
    assert arrays.won.tolist() == [False, True, False, False]
    assert arrays.lost.tolist() == [False, False, True, False]
    for row, one in enumerate((first, second)):
        own = one.arrays
        assert (arrays.first_hit_global[row] == own.first_hit_global).all()
        assert (arrays.first_hit_reranked[row] == own.first_hit_reranked).all()
        assert arrays.distances_m[row] == pytest.approx(own.distances_m[:, 0])
        assert (arrays.matches[row] == own.matches[:, 0]).all()
        assert (arrays.scores[row] == own.scores[:, 0]).all()
        assert arrays.similarities[row] == pytest.approx(own.similarities[:, 0])
        assert (arrays.timings_ms["total"][row] == own.timings_ms["total"]).all()
