"""The command line as a process of its own, which ends with the exit code of its verb and with no other."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from pipelines.cli.commands import main

__all__ = ["run"]

EXIT_BUG = 1


def run(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one verb and end this process with its exit code.

    Threads of native libraries (Ray, Arrow, Lance) may still run when a verb was interrupted or has failed.
    Seen after SIGTERM: while the interpreter collected the modules at its end, the process ended by SIGABRT
    instead of with the exit code. So the interpreter is not taken down: when all else that is registered for
    the end has run, the process ends.

    Args:
        argv: The verb and its arguments; default: those of this process.
    """
    code = [EXIT_BUG]  # unless `main` returns one; Python has shown the traceback before `_end` is called
    atexit.register(_end, code)  # what is registered first runs last
    try:
        code[0] = main(argv)
    except SystemExit:  # of wrong usage or --help, before anything was started
        atexit.unregister(_end)
        raise
    sys.exit(code[0])


def _end(code: list[int]) -> None:
    logging.shutdown()  # registered when `logging` was imported, so it would come after this
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code[0])
