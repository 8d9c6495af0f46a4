"""The table of faults in the documentation: each line names tests that exist."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "explanation" / "reliability.md"
FAULTS = 37


def lines_of_the_table() -> list[list[str]]:
    section = PAGE.read_text().partition("## Faults survived")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_fault_has_its_line() -> None:
    table = lines_of_the_table()
    assert [row[0] for row in table] == [str(number) for number in range(1, FAULTS + 1)]
    assert all(len(row) == 5 and all(row) for row in table)


@pytest.mark.parametrize("row", lines_of_the_table(), ids=lambda row: row[1])
def test_the_tests_of_a_fault_exist(row: list[str]) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", row[3])
    assert named
    assert len(named) == row[3].count("`") / 2
    for path, name in named:
        assert name in functions(path), f"{path} has no {name}"
