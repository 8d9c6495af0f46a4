"""Mutated photos, listings, weights files and requests: none ends a process, hangs or fills the memory."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.run import Finding, fuzz
from tests.fuzz.targets import TARGETS, opened
from tests.support.mutations import mutated
from tests.support.paths import ROOT

# Inputs per target; four times as many photos.
COUNT = int(os.environ.get("PLACERAY_FUZZ_INPUTS", "5000"))
FIRST = int(os.environ.get("PLACERAY_FUZZ_FIRST", "0"))
FINDINGS = Path(__file__).parent / "findings"
KEPT = sorted(path for path in FINDINGS.glob("*/*") if path.is_file())


@pytest.mark.fuzz
@pytest.mark.parametrize("target", TARGETS)
def test_mutations_are_survived(target: str, tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    command = [sys.executable, "-m", "tests.fuzz.run", target, "--first", str(FIRST)]
    command += ["--count", str(4 * COUNT if target == "images" else COUNT), "--progress", str(progress)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    at = progress.read_text() if progress.exists() else "none"
    assert done.returncode == 0, f"exit {done.returncode} at input {at}: {done.stderr[-3000:]}"
    figures = json.loads(done.stdout)
    assert sum(figures["outcomes"].values()) == figures["inputs"]
    assert len(figures["outcomes"]) > 1  # some are refused, and not all
    print(done.stdout)


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_findings_are_survived(kept: Path, tmp_path: Path) -> None:
    with opened[kept.parent.name](tmp_path) as check:
        assert check(kept.read_bytes())


@pytest.mark.parametrize("target", ["images", "listings"])
def test_seeds_are_accepted_and_mutations_differ(target: str, tmp_path: Path) -> None:
    seeds = TARGETS[target].seeds()
    with opened[target](tmp_path) as check:
        assert {check(seed) for seed in seeds} <= {"decoded", "listed"}
        outcomes = {check(mutated(seeds, number)) for number in range(60)}
    assert len(outcomes) > 1
    assert len({mutated(seeds, number) for number in range(100)}) > 95
    assert mutated(seeds, 7) == mutated(seeds, 7)


def test_what_is_not_survived_is_found() -> None:
    args = argparse.Namespace(target="images", progress=None, max_cpu_s=2.0)

    def fails(data: bytes) -> str:
        if data[:1] == b"b":
            raise ValueError("unexpected")
        return "fine"

    assert fuzz(lambda data: "fine", [b"abc"], range(50), args)["outcomes"] == {"fine": 50}
    with pytest.raises(Finding, match=r"input \d+: ValueError"):
        fuzz(fails, [b"abc", b"b"], range(50), args)
    args.max_cpu_s = -1.0
    with pytest.raises(Finding, match="processor time"):
        fuzz(lambda data: "fine", [b"abc"], range(5), args)
