from __future__ import annotations

import pytest

from benchmarks.catalogue import PARTS, Part, part_named, parts_touched
from benchmarks.provenance import RESULTS
from benchmarks.quotes import documents, find_quotes
from benchmarks.sources import ROOT, imported_files, own_files, source_files

SCRIPTS = sorted((ROOT / "benchmarks").glob("bench_*.py")) + sorted((ROOT / "benchmarks").glob("prove_*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_benchmark_is_declared(script) -> None:
    assert f"benchmarks.{script.stem}" in {part.module for part in PARTS}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_part_depends_on_what_its_benchmark_imports(part: Part) -> None:
    declared = set(source_files(part))
    imported = set().union(*(imported_files(path) for path in own_files(part)))
    rooms = [path for path in imported if path.parent != ROOT / "benchmarks" and path.name != "__init__.py"]
    assert {str(path.relative_to(ROOT)) for path in rooms} <= {str(p.relative_to(ROOT)) for p in declared}


def test_every_result_belongs_to_a_part() -> None:
    assert {path.name for path in RESULTS.glob("*.json")} <= {part.file for part in PARTS}


@pytest.mark.parametrize("file", ["search", "living"])
def test_every_quoted_table_belongs_to_a_part(file) -> None:
    parts = [part for part in PARTS if part.file == f"{file}.json"]
    quoted = {
        quote.steps[:3]
        for page in documents()
        for quote in find_quotes(page.read_text())
        if quote.file == file
    }
    assert len(quoted) > 3
    for *table, method in quoted:
        of_table = [part.arguments for part in parts if list(part.key[:2]) == table]
        assert any("--methods" not in arguments or method in arguments for arguments in of_table)


def test_names_are_unique() -> None:
    assert len({part.name for part in PARTS}) == len(PARTS)
    with pytest.raises(KeyError, match="pipeline feed"):
        part_named("pipelin feed")


def test_only_the_declared_arguments_are_the_part() -> None:
    search, recall = part_named("search 100000"), part_named("features recall")
    assert search.is_run_by(["--rows", "100000"])
    assert not search.is_run_by(["--rows", "1000"])
    assert not search.is_run_by(["--rows", "100000", "--methods", "exact"])
    assert recall.is_run_by(["recall", "/a", "/b"])
    assert not recall.is_run_by(["recall", "/a", "--encodings"])
    assert not recall.is_run_by(["recall", "/a"])


def test_a_command_touches_its_own_part_alone() -> None:
    touched = parts_touched("benchmarks.bench_pipeline", ["memory"])
    assert [part.name for part in touched] == ["pipeline memory"]
    cities = parts_touched("benchmarks.bench_drives", ["--sets", "hard:0:night"])
    assert [part.name for part in cities] == ["drives"]
    size = ["--rows", "2650000", "--shape", "learned", "--width", "1024", "--methods", "exact"]
    searched = parts_touched("benchmarks.bench_search", size)
    assert [part.name for part in searched] == ["search learned 2650000 1024"]


def test_folders_are_filled_in() -> None:
    command = part_named("finetune corridor").command({"corridor": "/photos/corridor"})
    assert command == ["-m", "benchmarks.prove_finetune", "corridor", "--photos", "/photos/corridor"]


def test_a_folder_below_one_of_the_user_is_filled_in() -> None:
    known = part_named("known corridor")
    assert known.needs == ("photos", "corridor")
    command = known.command({"photos": "/photos", "corridor": "/photos/corridor"})
    assert command[2:] == ["--dataset", "/photos/corridor", "--elsewhere", "/photos/ie_tower"]
    assert known.is_run_by(command[2:])
    assert not part_named("known").is_run_by(command[2:])


def test_weights_are_trained_before_what_looks_at_them() -> None:
    names = [part.name for part in PARTS]
    assert names.index("finetune demo") < names.index("finetune forgetting")
