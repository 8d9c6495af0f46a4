"""Checkpoints of a training run, as Ray Train stores them: written, and checked before a run resumes."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.training.errors import BadSettings, DataRejected
from pipelines.training.loop import TrainingLoop
from pipelines.training.settings import TrainingSettings
from storage.errors import OutOfSpace

__all__ = ["STATE", "checkpoint_of", "disk_full", "restore"]

# The file of a checkpoint.
STATE = "state.safetensors"


@contextlib.contextmanager
def checkpoint_of(loop: TrainingLoop, run: dict[str, Any], rank: int) -> Iterator[Any]:
    """Write a temporary checkpoint for Ray Train to store, on the first worker; other workers yield None."""
    import ray.train

    if rank:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="placeray-checkpoint-") as folder:
        with disk_full("the checkpoint"):
            loop.save(Path(folder, STATE), run)
        yield ray.train.Checkpoint.from_directory(folder)


@contextlib.contextmanager
def disk_full(what: str) -> Iterator[None]:
    """Report a file that cannot be written as `OutOfSpace`."""
    try:
        yield
    except OSError as error:
        raise OutOfSpace(
            f"{what} cannot be written ({error}): free some space and run the same command again; the "
            "earlier checkpoint is intact"
        ) from error


def restore(
    loop: TrainingLoop, checkpoint: Any, settings: TrainingSettings, *, digest: str, weights: str
) -> None:
    """Resume from a checkpoint of the same run.

    Args:
        loop: The loop that resumes.
        checkpoint: A `ray.train.Checkpoint`.
        settings: The settings of this run.
        digest: Of the photos of this run.
        weights: SHA-256 of the weights that this run starts from.

    Raises:
        BadSettings: the checkpoint is of a run with other settings or another model.
        DataRejected: it is of a run with other photos.
    """
    with checkpoint.as_directory() as folder:
        before = loop.restore(Path(folder, STATE))
    differing = settings.differences(before.get("settings"))
    if differing or before.get("weights") != weights:
        raise BadSettings(
            f"the checkpoints are of a run with another {', '.join(differing or ['model'])}: give another "
            "--storage or --run, or the same settings to resume it"
        )
    if before.get("digest") != digest:
        raise DataRejected(
            "changed",
            "the photos are not those that this run started with: restore them, or give another --run",
        )
