"""One progress line on a terminal, plain lines now and then in a log; both on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

__all__ = ["ProgressLine", "clock"]


class ProgressLine:
    """Shows images done, images/s, rejected and time left.

    Args:
        name: What runs.
        quiet: Show nothing.
        stream: Where to; stderr by default.
        log_every_s: Seconds between lines when the stream is no terminal.
    """

    def __init__(
        self, name: str, *, quiet: bool = False, stream: TextIO | None = None, log_every_s: float = 10.0
    ) -> None:
        self.name = name
        self.quiet = quiet
        self.stream = stream or sys.stderr
        self.log_every_s = log_every_s
        self.started = self.last = time.monotonic()
        self.done = 0
        self.text = ""
        self.shown = ""

    def update(self, done: int, rejected: int, total: int) -> None:
        """Show the state; `done` includes the rejected."""
        now = time.monotonic()
        if done < self.done:  # another stage of the job has begun
            self.started = now
        self.done = done
        rate = done / max(now - self.started, 1e-9)
        left = clock((total - done) / rate) if done else "?"
        self.show(f"{done}/{total} images, {rate:.1f}/s, {rejected} rejected, {left} left")

    def show(self, text: str) -> None:
        """Show a line of any other text after the name."""
        now = time.monotonic()
        self.text = f"{self.name}: {text}"
        if self.quiet:
            return
        if self.stream.isatty():
            self.stream.write(f"\r\x1b[K{self.text}")
            self.stream.flush()
            self.shown = self.text
        elif now - self.last >= self.log_every_s:
            print(self.text, file=self.stream, flush=True)
            self.last, self.shown = now, self.text

    def __enter__(self) -> ProgressLine:
        if not self.quiet and self.stream.isatty():
            self.stream.write(f"{self.name}: starting")
            self.stream.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.quiet:
            return
        if self.stream.isatty():
            print(file=self.stream)
        elif self.text and self.text != self.shown:
            print(self.text, file=self.stream, flush=True)


def clock(seconds: float) -> str:
    """Return hours, minutes and seconds as they are read on a clock."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
