"""Small models and checkpoints to write, import and damage."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from models.checkpoints import importing
from models.checkpoints.weights_file import save_weights
from models.networks.architecture import Architecture
from models.networks.selavpr import SelaVPR
from tests.support.paths import GOLDEN

CHECKPOINT = GOLDEN / "selavpr_small.pth"
SMALL = Architecture(width=64, depth=2, num_heads=1, mlp_width=128)


def small_model() -> SelaVPR:
    torch.manual_seed(0)
    return SelaVPR(SMALL, local_head=True)


def small_weights_file() -> bytes:
    """A weights file of the smallest model."""
    with tempfile.TemporaryDirectory() as folder:
        save_weights(path := Path(folder, "small.safetensors"), small_model())
        return path.read_bytes()


def golden_checkpoint() -> dict[str, Any]:
    """A small checkpoint in the published format, to be damaged."""
    with torch.serialization.safe_globals(importing._ALLOWED_TYPES):
        checkpoint: dict[str, Any] = torch.load(CHECKPOINT, weights_only=True)
    return checkpoint
