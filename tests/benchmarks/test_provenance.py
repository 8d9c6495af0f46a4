from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import check, sources
from benchmarks.catalogue import part_named
from benchmarks.provenance import RESULTS, State, stamped, status
from benchmarks.sources import digest

FEED = part_named("pipeline feed")
COMMAND = ["benchmarks.bench_pipeline", "feed"]


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Return a function that says what the digest of a part is with another text of one source file."""

    def digest_with(text: str, file: str = "code.py") -> str:
        (tmp_path / file).write_text(text)
        sources._file_digest.cache_clear()
        monkeypatch.setattr(sources, "ROOT", tmp_path)
        monkeypatch.setattr(sources, "source_files", lambda part: [tmp_path / file])
        return digest(FEED)

    yield digest_with
    sources._file_digest.cache_clear()


def keep(folder: Path, values: dict, name: str = "pipeline.json") -> None:
    (folder / name).write_text(json.dumps(values))


def test_a_result_of_the_present_code_is_current(tmp_path: Path) -> None:
    keep(tmp_path, stamped({"feed": {"rows": 1}}, {}, COMMAND, finished=True))
    found = status(FEED, tmp_path)
    assert found.state is State.CURRENT
    assert found.record["machine"]["cores"]
    assert found.record["command"] == "python -m benchmarks.bench_pipeline feed"


def test_a_result_of_other_code_is_outdated(tmp_path: Path) -> None:
    values = stamped({"feed": {"rows": 1}}, {}, COMMAND, finished=True)
    values["provenance"][FEED.name]["sources_sha256"] = "0" * 64
    keep(tmp_path, values)
    assert status(FEED, tmp_path).state is State.OUTDATED


def test_results_without_a_digest_are_outdated_and_absent_ones_missing(tmp_path: Path) -> None:
    assert status(FEED, tmp_path).state is State.MISSING
    keep(tmp_path, {"feed": "not measured yet"})
    assert status(FEED, tmp_path).state is State.MISSING
    keep(tmp_path, {"feed": {"rows": 1}})
    assert status(FEED, tmp_path).state is State.OUTDATED
    assert status(part_named("pipeline memory"), tmp_path).state is State.MISSING


@pytest.mark.parametrize("command", [[*COMMAND, "--images", "10"], COMMAND])
def test_a_run_with_other_arguments_or_a_stopped_one_is_not_current(
    tmp_path: Path, command: list[str]
) -> None:
    before = stamped({"feed": {"rows": 1}}, {}, COMMAND, finished=True)
    again = stamped({"feed": {"rows": 2}}, before["provenance"], command, finished=command != COMMAND)
    keep(tmp_path, again)
    assert status(FEED, tmp_path).state is State.OUTDATED


def test_a_run_leaves_the_provenance_of_other_parts(tmp_path: Path) -> None:
    before = stamped({"feed": {"rows": 1}}, {}, COMMAND, finished=True)
    out = ["benchmarks.bench_pipeline", "memory", "--out", "x.json"]
    after = stamped({"feed": {"rows": 1}, "memory": {"rows": 1}}, before["provenance"], out, finished=True)
    keep(tmp_path, after)
    assert status(FEED, tmp_path).state is State.CURRENT
    assert status(part_named("pipeline memory"), tmp_path).state is State.CURRENT


def test_where_files_are_written_changes_no_figure_and_is_not_recorded(tmp_path: Path) -> None:
    where = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "x.json")]
    after = stamped({"feed": {"rows": 1}}, {}, [*COMMAND, *where], finished=True)
    keep(tmp_path, after)
    assert status(FEED, tmp_path).state is State.CURRENT
    assert str(tmp_path) not in json.dumps(after)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_results_name_no_place_on_the_machine_that_measured(path: Path) -> None:
    assert re.findall(r"(?<![\w.:/])/(?:tmp|home|root|work|Users)/[^\s\"]*", path.read_text()) == []


def test_words_and_arrangement_do_not_make_a_result_old(edited) -> None:
    plain = edited("def f(a, b):\n    return a + b\n")
    assert (
        edited('"""File."""\n\n\ndef f(\n    a,\n    b,\n):\n    """Sum."""  # why\n    return a + b\n')
        == plain
    )
    assert edited("def f(a, b):\n    return a - b\n") != plain
    assert edited("def f(a, b=1):\n    return a + b\n") != plain
    assert edited("def f(a, b):\n    return a\n\n\nf + b\n") != plain


def test_other_files_count_byte_by_byte(edited) -> None:
    assert edited("a = 1", "page.js") != edited("a = 1 ", "page.js")


def test_check_names_what_is_old(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--results", str(tmp_path)]) == 0
    keep(tmp_path, {"feed": {"rows": 1}})
    assert check.main(["--results", str(tmp_path)]) == 1
    assert "pipeline feed" in capsys.readouterr().out.splitlines()[-2]
    keep(tmp_path, stamped({"feed": {"rows": 1}}, {}, COMMAND, finished=True))
    assert check.main(["--results", str(tmp_path)]) == 0
