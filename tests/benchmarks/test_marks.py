from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.catalogue import PARTS
from benchmarks.marks import marked, named_in
from benchmarks.provenance import State, stamped, status
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "explanation" / "benchmarks.md"
PLACES = PAGE.with_name("places.md")
MARK = "# Title\n\n<!-- measured: pipeline feed, pipeline memory -->\n\nText.\n"


def test_every_measured_benchmark_has_its_mark_on_a_page() -> None:
    measured = {part.name for part in PARTS if status(part).state is not State.MISSING}
    assert measured <= named_in(PAGE.read_text()) | named_in(PLACES.read_text())
    assert "<!-- measured:" not in marked(PLACES.read_text())


def test_the_page_marks_what_is_old_by_itself() -> None:
    page = marked(PAGE.read_text())
    assert "<!-- measured:" not in page
    for part in PARTS:
        state = status(part).state
        words = state.value if state is State.CURRENT else f"**{state.value}**"
        (line,) = (line for line in page.splitlines() if line.startswith(f"| {part.name} | `{part.file}` |"))
        assert line.endswith(f"| {words} |")


def test_a_mark_follows_the_results(tmp_path: Path) -> None:
    assert '!!! warning "Not measured yet"' in marked(MARK, tmp_path)
    feed = {"feed": {"rows": 1}, "memory": {"rows": 1}}
    (tmp_path / "pipeline.json").write_text(json.dumps(feed))
    assert '!!! warning "Older than the code"' in marked(MARK, tmp_path)
    for what in ("feed", "memory"):
        feed = stamped(feed, feed.get("provenance", {}), ["benchmarks.bench_pipeline", what], finished=True)
    (tmp_path / "pipeline.json").write_text(json.dumps(feed))
    text = marked(MARK, tmp_path)
    assert "warning" not in text
    assert "Of the present code" in text


def test_an_unknown_benchmark_is_an_error() -> None:
    with pytest.raises(KeyError, match="pipelines"):
        marked("<!-- measured: pipelines -->")
