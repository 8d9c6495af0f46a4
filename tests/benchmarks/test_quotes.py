from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.quotes import ROOT, BadQuote, differences, documents, find_quotes, result_of, rewritten

PAGE = ROOT / "docs" / "explanation" / "benchmarks.md"
TABLE = """
<!-- quotes {file} runs.{{row}}.{{column}}
rows: a::.0 | | b::[size=2]
columns: | ms{{more}} | bytes; least
-->

| what | ms | bytes |
|---|---|---|
| a | **1.2** (goal 9) | 1,000 (7) |
| by hand 5 | 5 | |
| b | 30 | 20 |
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    runs = {
        "a": {"ms": [1.249], "bytes": 1000, "least": 7},
        "b": {"ms": [{"size": 1}, {"size": 2}], "bytes": 20},
        "share 0.3": {"2.5 m": 7, "m": [8]},
    }
    (tmp_path / "made.json").write_text(json.dumps({"runs": runs, "rate": 41.66, "no": None}))
    return tmp_path


@pytest.mark.parametrize("page", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_quoted_figures_equal_the_results(page: Path) -> None:
    assert differences(page.read_text()) == []


def test_the_tables_of_the_page_quote_results_or_say_that_they_do_not() -> None:
    text = PAGE.read_text()
    silent = re.findall(r"^(?!-->|<!-- not among the results)[^\n]*\n\n\|([^\n]+)\n\|-", text, re.MULTILINE)
    assert [table for table in silent if "`benchmarks/results/" not in table and "| run |" not in table] == []
    assert len(find_quotes(text)) > 500


def test_a_number_before_a_comment_is_compared(folder: Path) -> None:
    assert differences("at **41.7**<!-- quotes made rate --> images/s", folder) == []
    assert differences("at 42<!-- quotes made rate --> images/s", folder) == []
    (sentence,) = differences("at 41.6<!-- quotes made rate --> images/s", folder)
    assert "41.6 is 41.66" in sentence


def test_a_table_is_compared_cell_by_cell(folder: Path) -> None:
    text = TABLE.format(file="made").replace("b::[size=2]", "")
    found = find_quotes(text)
    assert [(quote.figure, quote.key) for quote in found] == [
        ("1.2", "runs.a.ms.0"),
        ("1,000", "runs.a.bytes"),
        ("7", "runs.a.least"),
    ]
    assert differences(text, folder) == []
    assert len(differences(text.replace("1,000", "1,001").replace("1.2", "1.3"), folder)) == 2


def test_entries_of_a_list_are_chosen_by_a_value(folder: Path) -> None:
    (folder / "list.json").write_text(json.dumps({"rows": [{"n": 1, "ms": 5}, {"n": 2, "ms": 6}]}))
    (quote,) = find_quotes("6<!-- quotes list rows[n=2].ms -->")
    assert result_of(quote, folder) == 6


def test_keys_with_dots_stand_in_brackets(folder: Path) -> None:
    for key, figure in (("runs[share 0.3][2.5 m]", 7), ("runs.[share 0.3].m.0", 8), ("[rate]", 41.66)):
        (quote,) = find_quotes(f"at {figure}<!-- quotes made {key} --> ms")
        assert result_of(quote, folder) == figure
    table = TABLE.replace("a::.0 | | b::[size=2]", "[share 0.3]::.0 | |").replace("ms{{more}}", "m{{more}}")
    found = [
        result_of(quote, folder)
        for quote in find_quotes(table.format(file="made").replace("bytes; least", ""))
    ]
    assert found == [8]
    (quote,) = find_quotes("at 7<!-- quotes made runs.share 0.3.m --> ms")
    with pytest.raises(BadQuote, match="at 'share 0'"):
        result_of(quote, folder)


def test_results_are_written_into_the_text(folder: Path) -> None:
    text = "at 41.6<!-- quotes made rate --> and 999<!-- quotes made runs.a.bytes --> bytes"
    written = "at 41.7<!-- quotes made rate --> and 1,000<!-- quotes made runs.a.bytes --> bytes"
    assert rewritten(text, folder) == written
    assert rewritten(written, folder) == written


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1<!-- quotes made runs.c -->", "no runs.c"),
        ("1<!-- quotes made no -->", "not a number"),
        ("1<!-- quotes other rate -->", "no results"),
        ("one <!-- quotes made rate -->", "0 of 1"),
        (TABLE.format(file="made").replace("a::.0 |", "a::.0 | |"), "rows"),
        (TABLE.format(file="made").replace("columns: |", "columns: | |"), "columns"),
        (TABLE.format(file="made").replace("| what", "what"), "no table|table of 0"),
        (TABLE.format(file="made").replace("1,000 (7)", "1,000"), "numbers"),
    ],
)
def test_a_comment_that_does_not_fit_is_an_error(folder: Path, text: str, reason: str) -> None:
    with pytest.raises(BadQuote, match=reason):
        differences(text, folder)
