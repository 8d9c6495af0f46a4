"""The command line as a process: its exit code is that of its verb, and nothing that was written is lost."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.paths import ROOT

# A verb that ends as BODY says; what the interpreter takes down at its end aborts the process, as native code
# of a thread that is still running does.
CHILD = """
import atexit, logging, os, signal, sys
from pipelines.cli import commands, run

class Aborts:
    def __del__(self):
        os.abort()

def verb(args):
    atexit.register(print, "registered for the end")
    print("a result")
    {body}
    return 0

sys.modules["kept_to_the_end"] = Aborts()
commands.VERBS["info"] = verb
run(["info", "--store", "any"])
"""
ENDINGS = {
    "return 3": 3,
    "signal.raise_signal(signal.SIGTERM)": 143,
    "signal.raise_signal(signal.SIGINT)": 130,
}


def run_child(body: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD.format(body=body)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("body", ENDINGS)
def test_exit_code_is_that_of_the_verb_whatever_native_code_does_at_the_end(body: str) -> None:
    done = run_child(body)
    assert done.returncode == ENDINGS[body], done.stderr
    assert done.stdout.splitlines() == ["a result", "registered for the end"]
    assert len(done.stderr.splitlines()) == (0 if body == "return 3" else 1)


def test_bug_ends_with_its_traceback_and_1() -> None:
    done = run_child("raise ZeroDivisionError")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError"


def test_wrong_usage_ends_with_2() -> None:
    command = [sys.executable, "-m", "pipelines.cli", "info"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--store" in done.stderr
