"""The evaluation report: its content, its examples, and that it loads nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from models.weights import load_extractor
from pipelines.evaluation.recall import measure_recall
from pipelines.evaluation.report import choose_examples, write_report
from pipelines.evaluation.result import Evaluation, QueryOutcome
from serving.engine import QueryEngine
from storage.position import Position
from tests.serving.test_engine import fill
from tests.support.pictures import write_photos


def outcome(name: str, before: int | None, after: int | None) -> QueryOutcome:
    return QueryOutcome(name, Position(), None, 1, (object(),), before, after)  # type: ignore[arg-type]


def evaluation(outcomes: tuple[QueryOutcome, ...]) -> Evaluation:
    recall = {name: dict.fromkeys(("1", "5", "10", "20"), 0.0) for name in ("global", "reranked")}
    return Evaluation("d", "p", "m", 1, len(outcomes), 1, recall, {}, 0, 0, 0, 0, 0, outcomes)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "br"}:
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_choose_examples_shows_rescued_unchanged_and_wrong() -> None:
    many = tuple(
        [outcome(f"rescued{i}", 4, 1) for i in range(30)]
        + [outcome(f"unchanged{i}", 1, 1) for i in range(30)]
        + [outcome(f"wrong{i}", 1, None) for i in range(30)]
    )
    chosen = [re.sub(r"\d", "", o.uri) for o in choose_examples(evaluation(many), count=12)]
    assert chosen == ["rescued"] * 6 + ["unchanged"] * 3 + ["wrong"] * 3
    assert len(choose_examples(evaluation(many[:2]), count=12)) == 2
    assert choose_examples(evaluation(())) == []


def test_report_page_shows_no_file_but_the_indexed_one(tmp_path: Path) -> None:
    """A row of somebody else's store may name any photo of this machine."""
    extractor = load_extractor("efficientnet-lite0")
    store = fill(str(tmp_path / "store"), extractor, range(4))
    write_photos(tmp_path / "set/queries", 2)
    write_photos(tmp_path / "private", 1)
    (tmp_path / "set/database").mkdir()
    (private,) = (tmp_path / "private").iterdir()
    amended = pa.table({"image_id": [f"p{seed:02d}" for seed in range(4)], "uri": [str(private)] * 4})
    with store.lease():
        store.amend(amended)
    engine = QueryEngine(store, extractor)
    write_report(tmp_path / "index.html", measure_recall(tmp_path / "set", engine), engine)
    tags = Tags()
    tags.feed((tmp_path / "index.html").read_text())
    assert sorted(link == "data:," for link in tags.links) == [False, False, True, True]


def test_report_page_is_valid_and_draws_lines_between_matches(tmp_path: Path) -> None:
    extractor = load_extractor("efficientnet-lite0")
    store = fill(str(tmp_path / "store"), extractor, range(6))
    write_photos(tmp_path / "set" / "queries", 4)
    (tmp_path / "set" / "queries" / "@500000@4000001@<i>&.jpg").write_bytes(b"")
    (tmp_path / "set" / "database").mkdir()
    engine = QueryEngine(store, extractor)
    result = measure_recall(tmp_path / "set", engine)

    write_report(tmp_path / "out" / "index.html", result, engine, notes=["a <note>"])

    page = (tmp_path / "out" / "index.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert all(link.startswith("data:") for link in tags.links)
    assert len(tags.links) == 8  # query and answer of four figures; the unreadable photo has none
    assert f"{result.recall['reranked']['1']:.1f} %" in page
    assert "a &lt;note&gt;" in page
    assert "1 query photos could not be used" in page
    lines = np.array(
        re.findall(r'<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"', page), float
    )
    assert len(lines) > 4 * 20
    # The stored image is the query, so matches lie at the same share of the height. Its file is gone:
    # an empty frame of 420x315 stands in for it.
    assert np.median(np.abs(lines[:, 1] / 72 - lines[:, 3] / 315)) == pytest.approx(0.0, abs=0.01)
    assert (lines[:, 2] > 96).all()
