from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import measure_all
from benchmarks.provenance import stamped
from benchmarks.results import read_results


class Benchmarks:
    """Runs of benchmarks that write one result each, or fail."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.commands: list[str] = []

    def __call__(self, command: list[str]) -> int:
        module, arguments, out = command[2], command[3:-2], Path(command[-1])
        self.commands.append(" ".join([module.removeprefix("benchmarks."), *arguments]))
        if self.failing and self.failing in self.commands[-1]:
            return 3
        former = read_results(out)
        values = former | {arguments[0]: {"figure": 1}}
        values = stamped(values, former.get("provenance", {}), command[2:], finished=True)
        out.write_text(json.dumps(values))
        return 0


PARTS = ["--only", "pipeline commit", "pipeline feed", "pipeline memory"]


def test_what_is_current_is_not_measured_again(tmp_path: Path) -> None:
    runs = Benchmarks(failing="feed")
    arguments = [*PARTS, "--results", str(tmp_path)]
    assert measure_all.main(arguments, runs) == 1
    assert runs.commands == ["bench_pipeline commit", "bench_pipeline feed", "bench_pipeline memory"]
    again = Benchmarks()
    assert measure_all.main(arguments, again) == 0
    assert again.commands == ["bench_pipeline feed"]
    assert measure_all.main(arguments, again) == 0
    assert again.commands == ["bench_pipeline feed"]


def test_a_result_of_another_machine_is_measured_again(tmp_path: Path) -> None:
    arguments = ["--only", "pipeline feed", "--results", str(tmp_path)]
    assert measure_all.main(arguments, Benchmarks()) == 0
    path = tmp_path / "pipeline.json"
    values = json.loads(path.read_text())
    values["provenance"]["pipeline feed"]["machine"]["cpu"] = "another"
    path.write_text(json.dumps(values))
    runs = Benchmarks()
    assert measure_all.main(arguments, runs) == 0
    assert runs.commands == ["bench_pipeline feed"]


def test_a_run_that_writes_nothing_has_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--only", "pipeline feed", "--results", str(tmp_path)]
    assert measure_all.main(arguments, lambda command: 0) == 1
    assert "failed: pipeline feed" in capsys.readouterr().out


def test_what_needs_folders_is_left_out_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = Benchmarks()
    arguments = ["--only", "finetune corridor", "--results", str(tmp_path)]
    assert measure_all.main(arguments, runs) == 1
    assert "--input corridor=DIR" in capsys.readouterr().out
    assert runs.commands == []
    assert measure_all.main([*arguments, "--input", f"corridor={tmp_path}"], runs) == 0
    assert runs.commands == [f"prove_finetune corridor --photos {tmp_path.resolve()}"]


def test_list_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = Benchmarks()
    assert measure_all.main([*PARTS, "--list", "--results", str(tmp_path)], runs) == 0
    assert runs.commands == []
    assert "-m benchmarks.bench_pipeline memory" in capsys.readouterr().out
