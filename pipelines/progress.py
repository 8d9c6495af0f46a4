"""Progress of a job on stderr: a bar in a terminal or a notebook, periodic lines in a log."""

from __future__ import annotations

import os
import sys
import time
import warnings
from types import TracebackType
from typing import Any, TextIO

from storage.text import plain

__all__ = ["ProgressBar", "counted"]

_MAX_LINE_LENGTH = 500
_BAR_FORMAT = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
)


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number and its noun, such as `1 node` or `2 nodes`."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


class ProgressBar:
    """Shows progress, rate, rejected items and remaining time; use it in a `with` block.

    Args:
        name: Name of the job.
        unit: Unit of the counts.
        quiet: Show nothing.
        stream: Where to write; default: stderr.
        log_every_s: Seconds between two lines where `stream` is neither a terminal nor a notebook.

    Attributes:
        status: Text at the end of every line, until it is changed.
    """

    def __init__(
        self,
        name: str,
        *,
        unit: str = "images",
        quiet: bool = False,
        stream: TextIO | None = None,
        log_every_s: float = 10.0,
    ) -> None:
        self._name = name
        self._unit = unit
        self._quiet = quiet
        self._stream = stream or sys.stderr
        self._log_every_s = log_every_s
        self._bar: Any = None
        self._started = self._logged_at = time.monotonic()
        self._initial = self._done = 0
        self._line = self._logged = ""
        self.status = ""

    def restart(self, total: int, *, initial: int = 0) -> None:
        """Begin another stage of the job.

        Args:
            total: Total of the stage.
            initial: Items done by an earlier run, which do not count for the rate.
        """
        self._started, self._initial, self._done = time.monotonic(), initial, initial
        if self._bar is not None:
            self._bar.reset(total=total)
            self._bar.n = self._bar.last_print_n = self._bar.initial = initial

    def update(self, done: int, rejected: int | None, total: int, *, note: str = "") -> None:
        """Show the state of the job. A smaller `done` than before begins another stage.

        Args:
            done: Items done, including rejected ones.
            rejected: Items rejected; None where nothing can be rejected.
            total: Total of the stage.
            note: Text at the end of the line.
        """
        if self._quiet:
            return
        if done < self._done:
            self.restart(total)
        notes = [f"{rejected} rejected"] if rejected is not None else []
        notes += [text for text in (self.status, note) if text]
        if self._bar is not None:
            self._bar.total = total
            self._bar.set_postfix_str(", ".join(notes), refresh=False)
            self._bar.update(done - self._done)
        else:
            self._log(done, total, notes)
        self._done = done

    def say(self, text: str) -> None:
        """Show one line beside the progress, after the name of the job."""
        if self._quiet:
            return
        line = plain(f"{self._name}: {text}", _MAX_LINE_LENGTH)
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def _log(self, done: int, total: int, notes: list[str]) -> None:
        from tqdm import tqdm

        now = time.monotonic()
        rate = (done - self._initial) / max(now - self._started, 1e-9)
        left = tqdm.format_interval((total - done) / rate) if rate else "?"
        parts = [f"{done}/{total} {self._unit}", f"{rate:.1f}/s", *notes, f"{left} left"]
        self._line = f"{self._name}: {', '.join(parts)}"
        if now - self._logged_at >= self._log_every_s:
            self._print_line()
            self._logged_at = now

    def _print_line(self) -> None:
        print(self._line, file=self._stream, flush=True)
        self._logged = self._line

    def __enter__(self) -> ProgressBar:
        if not self._quiet and (self._stream.isatty() or _is_notebook(self._stream)):
            self._bar = _bar_class()(
                desc=self._name,
                unit=f" {self._unit}",
                file=self._stream,
                bar_format=_BAR_FORMAT,
                miniters=1,
                **_size_of(self._stream),
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.leave = self._bar.total is not None
            self._bar.close()
            self._bar = None
        elif self._line != self._logged:
            self._print_line()


def _is_notebook(stream: TextIO) -> bool:
    """Whether a stream is the output of a notebook's cell."""
    return type(stream).__module__.startswith("ipykernel.")


def _size_of(stream: TextIO) -> dict[str, Any]:
    """Return tqdm's options for the size of a terminal; it draws nothing in one of zero columns."""
    try:
        if os.get_terminal_size(stream.fileno()).columns > 0:
            return {"dynamic_ncols": True}
    except OSError:
        pass
    return {"ncols": 80, "nrows": 24}


def _bar_class() -> Any:
    from tqdm import TqdmWarning

    with warnings.catch_warnings():
        # Without ipywidgets a notebook gets the bar of a terminal.
        warnings.simplefilter("ignore", TqdmWarning)
        from tqdm.auto import tqdm

    return tqdm
