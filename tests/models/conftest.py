"""Models shared by the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.checkpoints.importing import import_checkpoint
from storage.card import Card
from tests.support.weights_samples import CHECKPOINT


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Card]:
    """The golden checkpoint as a weights file, and its card; for reading only."""
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("imported") / "small.safetensors"
    return path, import_checkpoint(CHECKPOINT, path)
