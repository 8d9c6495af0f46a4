"""SelaVPR++ before training: a pretrained trunk with branches that do not change it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from models.checkpoints.tensors import fill
from models.networks.architecture import Architecture
from models.networks.selavprpp import Branch, SelaVPRpp
from models.networks.selavprpp_description import SelaVPRppDescription

__all__ = ["untrained_selavprpp"]

_SKIPPED = {24: 8}  # blocks without an adapter, by depth
_FLOAT_DIMS = {1024: 4096}
_FLOAT_DIM = 2048


def untrained_selavprpp(
    architecture: Architecture, trunk: Mapping[str, Tensor], *, trunk_name: str | None = None
) -> SelaVPRpp:
    """Return a model with a float branch as training begins with; its weights are deterministic.

    Args:
        architecture: Of the trunk.
        trunk: Its tensors, named `backbone.vit.*`.
        trunk_name: timm's name, where timm's hub has it.
    """
    description = SelaVPRppDescription(
        architecture,
        adapters=architecture.depth - _SKIPPED.get(architecture.depth, 0),
        float_dim=_FLOAT_DIMS.get(architecture.width, _FLOAT_DIM),
        code_bits=None,
    )
    with torch.device("meta"):
        model = SelaVPRpp(description)
    branch = _new_branch(architecture.width, description.adapters, description.float_dim)
    tensors = {f"float_branch.{name}": tensor for name, tensor in branch.state_dict().items()}
    fill(model, dict(trunk) | tensors)
    model.trunk_name = trunk_name
    return model


def _new_branch(width: int, adapters: int, out: int) -> Branch:
    """Return an untrained branch with deterministic weights."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Branch(width, adapters, out)
