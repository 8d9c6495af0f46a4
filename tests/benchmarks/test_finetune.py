"""The weights of the last step are read from the newest checkpoint of a run that took all its epochs."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from benchmarks.prove_finetune import CAREFUL, _write_last
from models.training.checkpoint import save_checkpoint
from models.training.trainable import trainable_parameters
from models.weights import load_card
from pipelines.training.checkpoints import STATE
from pipelines.training.worker import trainable_model


def checkpoint(work: Path, day: str, value: float, epoch: int) -> None:
    """Write a checkpoint whose trained numbers are all the same."""
    model, _ = trainable_model(CAREFUL)
    parameters = trainable_parameters(model)
    for parameter in parameters.values():
        parameter.data.fill_(value)
    folder = work / "careful.run" / "checkpoints" / f"checkpoint_{day}"
    folder.mkdir(parents=True)
    optimiser = torch.optim.Adam(parameters.values())
    save_checkpoint(folder / STATE, model, optimiser, {"progress": {"epoch": epoch}})


def test_the_newest_checkpoint_is_the_last_step(tmp_path) -> None:
    checkpoint(tmp_path, "2026-11-29_10-00-00.000001", 2.0, epoch=0)
    checkpoint(tmp_path, "2026-11-30_09-00-00.000001", 3.0, epoch=1)
    written = _write_last(tmp_path, "careful", CAREFUL)
    adapters = {
        name: tensor for name, tensor in safetensors.torch.load_file(written).items() if "adapter" in name
    }
    assert adapters
    assert all(bool((tensor == 3.0).all()) for tensor in adapters.values())
    assert load_card(str(written)).aggregation is None


def test_a_run_that_stopped_before_its_last_epoch_has_none(tmp_path) -> None:
    checkpoint(tmp_path, "2026-11-30_09-00-00.000001", 2.0, epoch=0)
    with pytest.raises(RuntimeError, match="of epoch 0, not the last"):
        _write_last(tmp_path, "careful", CAREFUL)
