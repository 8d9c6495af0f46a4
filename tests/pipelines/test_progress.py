"""The progress line on a terminal and in a log."""

from __future__ import annotations

import io

from pipelines.progress import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_terminal_rewrites_one_line() -> None:
    stream = Terminal()
    with ProgressLine("index", stream=stream) as line:
        line.update(10, 1, 40)
        line.update(40, 2, 40)
    shown = stream.getvalue()
    assert shown.count("\n") == 1
    last = shown.split("\r\x1b[K")[-1]
    assert last.startswith("index: 40/40 images, ")
    assert last.endswith("2 rejected, 0:00 left\n")


def test_progress_log_gets_few_plain_lines_and_the_last_state() -> None:
    stream = io.StringIO()
    with ProgressLine("index", stream=stream, log_every_s=3600) as line:
        for done in range(1, 101):
            line.update(done, 0, 100)
    assert stream.getvalue().splitlines() == [line.text]
    assert "100/100" in line.text
    often = io.StringIO()
    with ProgressLine("index", stream=often, log_every_s=0) as line:
        for done in (1, 2, 3):
            line.update(done, 0, 3)
    assert [text.split()[1] for text in often.getvalue().splitlines()] == ["1/3", "2/3", "3/3"]


def test_progress_quiet_says_nothing() -> None:
    stream = Terminal()
    with ProgressLine("index", quiet=True, stream=stream) as line:
        line.update(1, 0, 1)
    assert stream.getvalue() == ""
