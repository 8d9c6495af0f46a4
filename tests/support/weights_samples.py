"""Small models and checkpoints to write, import and damage."""

from __future__ import annotations

from typing import Any

import torch

from models.checkpoints import importing
from models.networks.architecture import Architecture
from models.networks.selavpr import SelaVPR
from tests.support.paths import GOLDEN

CHECKPOINT = GOLDEN / "selavpr_small.pth"
SMALL = Architecture(width=64, depth=2, num_heads=1, mlp_width=128)


def small_model() -> SelaVPR:
    torch.manual_seed(0)
    return SelaVPR(SMALL, local_head=True)


def golden_checkpoint() -> dict[str, Any]:
    """A small checkpoint in the published format, to be damaged."""
    with torch.serialization.safe_globals(importing._ALLOWED_TYPES):
        checkpoint: dict[str, Any] = torch.load(CHECKPOINT, weights_only=True)
    return checkpoint
