"""Holds back what Ray and its native code write to the terminal."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["plain_messages", "quiet_stderr"]

# Jobs report lost nodes themselves, in one line each.
_LOSS = re.compile(
    r"Raylet is terminated|The node with node id: |Task \S+ failed\. There are (infinite|\d+) retries"
)


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what this process and its native code write to stderr; show it if the block fails."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except Exception:  # not where the user ends it
            captured.seek(0)
            os.write(stderr, captured.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


@contextlib.contextmanager
def plain_messages() -> Iterator[None]:
    """Show what the cluster reports on stderr, without what it repeats for each lost node and actor.

    Ray prints it on stdout, where results go, with the last lines of the log of a raylet that died.
    """
    from ray._private import worker

    show: Callable[..., None] = worker.print_to_stdstream

    def show_rest(data: dict[str, Any], *args: Any, **options: Any) -> None:
        lines = [line for line in data["lines"] if not _LOSS.match(line)]
        if lines:
            show({**data, "lines": lines, "is_err": True}, *args, **options)

    worker.print_to_stdstream = show_rest
    try:
        yield
    finally:
        worker.print_to_stdstream = show
