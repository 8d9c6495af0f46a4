"""Progress in a terminal, in a log and in a notebook."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from pipelines.progress import ProgressBar
from tests.support.paths import ROOT

JOB = """
from pipelines.progress import ProgressBar
with ProgressBar("index", quiet={quiet}) as bar:
    for done in range(1, 201):
        bar.update(done, done // 100, 200)
"""


def run_job(stderr: int, *, quiet: bool = False) -> str:
    """Run a job in another process and return its stdout."""
    done = subprocess.run(
        [sys.executable, "-c", JOB.format(quiet=quiet)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        check=True,
    )
    return done.stdout


def on_terminal(*, columns: int = 100, quiet: bool = False) -> str:
    """Return what the job shows on a pseudo-terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30 * bool(columns), columns, 0, 0))
    try:
        assert run_job(theirs, quiet=quiet) == ""
        os.write(theirs, b"<end>")
        shown = b""
        while not shown.endswith(b"<end>"):
            shown += os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)
    return shown.decode().removesuffix("<end>")


@pytest.mark.parametrize("columns", [100, 0])
def test_a_terminal_gets_one_bar_that_is_redrawn(columns: int) -> None:
    shown = on_terminal(columns=columns)
    assert shown.count("\n") == 1
    states = shown.split("\r")
    assert len(states) > 2
    last = next(state for state in reversed(states) if state.strip())
    assert last.startswith("index: 100%")
    assert "200/200" in last
    assert " images/s" in last
    assert "2 rejected" in last


def test_a_log_file_gets_plain_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as file:
        run_job(file.fileno())
    (line,) = log.read_text().splitlines()
    assert line.startswith("index: 200/200 images, ")
    assert line.endswith("/s, 2 rejected, 00:00 left")
    assert "\r" not in log.read_text()
    assert "\x1b" not in log.read_text()


def test_quiet_shows_nothing(tmp_path: Path) -> None:
    assert on_terminal(quiet=True) == ""
    with (tmp_path / "log").open("w") as file:
        run_job(file.fileno(), quiet=True)
    assert (tmp_path / "log").read_text() == ""


def logged(*states: tuple[int, int | None, int], log_every_s: float = 0.0) -> list[str]:
    stream = io.StringIO()
    with ProgressBar("index", stream=stream, log_every_s=log_every_s) as bar:
        for state in states:
            bar.update(*state)
    return stream.getvalue().splitlines()


def test_a_log_gets_periodic_lines_and_the_final_state() -> None:
    states = [(done, 0, 100) for done in range(1, 101)]
    assert [line.split()[1] for line in logged(*states, log_every_s=3600)] == ["100/100"]
    assert len(logged(*states)) == 100
    assert logged() == []
    assert "rejected" not in logged((1, None, 2))[0]


def test_a_new_stage_resets_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("pipelines.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    with ProgressBar("job", unit="steps", stream=stream, log_every_s=0.0) as bar:
        now[0] = 10.0
        bar.update(100, None, 100)
        now[0] = 20.0
        bar.update(0, None, 50)
        now[0] = 30.0
        bar.update(10, None, 50, note="loss 0.5")
        bar.restart(1000, initial=500)
        now[0] = 40.0
        bar.update(520, None, 1000)
    lines = stream.getvalue().splitlines()
    assert lines == [
        "job: 100/100 steps, 10.0/s, 00:00 left",
        "job: 0/50 steps, 0.0/s, ? left",
        "job: 10/50 steps, 1.0/s, loss 0.5, 00:40 left",
        "job: 520/1000 steps, 2.0/s, 04:00 left",
    ]


def test_a_notebook_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class OutStream(io.StringIO):
        """As the stderr of a notebook's cell."""

    OutStream.__module__ = "ipykernel.iostream"
    stream = OutStream()
    with ProgressBar("index", stream=stream) as bar:
        bar.update(3, 0, 4)
        bar.update(1, 0, 2)  # another stage
        bar.update(2, 1, 2)
    last = next(state for state in reversed(stream.getvalue().split("\r")) if state.strip())
    assert "index: 100%" in last
    assert "2/2" in last
    assert "1 rejected" in last
