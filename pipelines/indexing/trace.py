"""Timings of the stages of an index run, written as JSON lines (`--trace`)."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

__all__ = ["span"]


@contextlib.contextmanager
def span(trace: str | None, stage: str, rows: int) -> Iterator[dict[str, Any]]:
    """Time the processing of one batch and append it to a trace file as one JSON object.

    The file is opened for appending and each line is a single write, so lines of several workers do not mix.

    Args:
        trace: The file; None writes nothing.
        stage: Name of the stage.
        rows: Number of rows in the batch.

    Yields:
        The JSON object, to which the caller adds `bytes`, the size of its output.
    """
    line: dict[str, Any] = {"stage": stage, "pid": os.getpid(), "begin_s": time.time(), "rows": rows}
    if trace:
        line["node"] = _node_id()
    cpu_begin = time.process_time()
    yield line
    if trace:
        line |= {"end_s": time.time(), "cpu_s": time.process_time() - cpu_begin}
        with open(trace, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _node_id() -> str | None:
    """Return the id of the Ray node that this process runs on; None outside of Ray."""
    ray = sys.modules.get("ray")
    return ray.get_runtime_context().get_node_id() if ray is not None and ray.is_initialized() else None
