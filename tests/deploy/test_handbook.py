"""The operator's handbook: its values and commands are ones that the chart and the command line take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from pipelines.cli.parser import build_parser
from tests.support.deployment_tools import run
from tests.support.paths import ROOT
from tests.support.rendered_chart import (
    CHART,
    cel_mistakes,
    kubernetes_mistakes,
    mistakes,
    schema_mistakes,
)

GUIDES = [ROOT / "docs" / "guides" / name for name in ("operating.md", "plan.md")]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def commands(page: Path, program: str) -> list[list[str]]:
    """Return the words of each command of a program on a page."""
    lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [
        line[line.index(program) : line.index("|") if "|" in line else None]
        for line in words
        if program in line
    ]


HELM = [
    words
    for words in commands(GUIDES[0], "helm")
    if words[1] in ("install", "upgrade", "template") and words[2] == "city"
]
PLACERAY = [words for page in GUIDES for words in commands(page, "placeray")]


@pytest.mark.parametrize("words", HELM, ids=" ".join)
def test_every_command_of_helm_makes_valid_manifests(tmp_path: Path, words: list[str]) -> None:
    (values,) = [block for block in blocks(GUIDES[0], "yaml") if block.startswith("# city.yaml")]
    (tmp_path / "city.yaml").write_text(values)
    assert words[3] == str(CHART.relative_to(ROOT))
    flags = [str(tmp_path / word) if word == "city.yaml" else word for word in words[4:]]
    done = run("helm", "template", "city", CHART, *flags)
    assert done.returncode == 0, done.stderr
    documents = [one for one in yaml.load_all(done.stdout, yaml.CSafeLoader) if one]
    assert documents
    for found in (mistakes, schema_mistakes, cel_mistakes, kubernetes_mistakes):
        assert found(documents) == []


@pytest.mark.parametrize("words", PLACERAY, ids=" ".join)
def test_every_command_of_placeray_is_one(words: list[str]) -> None:
    assert vars(build_parser().parse_args(words[1:]))["verb"] == words[1]


def test_the_handbook_has_commands_for_every_procedure() -> None:
    assert len(HELM) >= 6
    assert {"plan", "copy", "verify", "query"} <= {words[1] for words in PLACERAY}


def test_every_procedure_says_what_was_tried_of_it_and_what_was_not() -> None:
    text = GUIDES[0].read_text()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    procedures = set(headings[headings.index("Build the image") : headings.index("What was tried")])
    table = text[text.index("## What was tried") :]
    rows = {row[0]: row[1:] for row in re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", table, re.MULTILINE)}
    assert procedures <= set(rows)
    for name in procedures:
        assert all(len(cell) > 10 for cell in rows[name]), name
