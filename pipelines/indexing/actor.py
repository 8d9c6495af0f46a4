"""Actors and tasks of an index run. They import little: on few cores that would delay the first images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa

__all__ = ["ShardWriter", "StageActor", "write_blocks"]


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


class ShardWriter:
    """Writes shards in an actor.

    Args:
        stage: `pipelines.indexing.write.write`.
        options: Its keyword arguments.
    """

    def __init__(self, stage: Callable[..., pa.Table], options: dict[str, Any]) -> None:
        self._stage, self._options = stage, options

    def write(self, *blocks: pa.Table) -> pa.Table:
        """Write the rows of some blocks as one shard."""
        return write_blocks(self._stage, self._options, *blocks)


def write_blocks(stage: Callable[..., pa.Table], options: dict[str, Any], *blocks: pa.Table) -> pa.Table:
    """Write the rows of some blocks as one shard; `ShardWriter` has the arguments."""
    return stage(pa.concat_tables(blocks), **options)
