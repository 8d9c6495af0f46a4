"""An actor that runs a stage given as a function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa

__all__ = ["StageActor"]


class StageActor:
    """Runs a stage in an actor, for long runs.

    Where there are more workers than cores, Ray stops the worker of a task that has waited for a second and
    starts another one when there is work again, at three seconds of CPU time each. Actors stay alive.

    Args:
        stage: `decode` or `write`.
        options: Keyword arguments of the stage.
    """

    def __init__(self, stage: Callable[..., pa.Table], **options: Any) -> None:
        self._stage = partial(stage, **options)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Process one batch."""
        return self._stage(batch)
