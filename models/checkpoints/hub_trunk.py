"""DINOv2 trunks from timm's hub: loading them, and files that leave such a trunk out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from models.checkpoints.hub import pretrained
from models.checkpoints.tensors import weights_digest
from models.errors import WeightsRejected, WeightsUnavailable
from models.names import DEFAULT_MODEL

__all__ = ["PREFIX", "hub_tensors", "is_hub_trunk", "require_hub_trunk"]

PREFIX = "backbone.vit."
_ALTERNATIVES = f"use the offline default model {DEFAULT_MODEL}, or pass the path of a safetensors file"


def hub_tensors(timm_name: str, *, model: str) -> dict[str, Tensor]:
    """Return the tensors of a pretrained DINOv2, named as in a network whose trunk it is.

    Args:
        timm_name: timm's name.
        model: What needs it, for the message.

    Raises:
        WeightsUnavailable: the hub cannot be reached and the cache does not hold them.
    """
    try:
        source = pretrained(timm_name, num_classes=0)
    except Exception as error:  # hub clients raise exceptions of many libraries
        raise WeightsUnavailable(
            f"the DINOv2 weights of {model} are not available ({type(error).__name__}: timm's {timm_name} "
            f"needs the network or a filled cache): {_ALTERNATIVES}"
        ) from error
    weights = source.state_dict()
    scales = weights["blocks.0.ls1.gamma"]
    if bool((scales == scales[0]).all()):
        raise WeightsUnavailable(f"timm gave {timm_name} without trained weights: {_ALTERNATIVES}")
    return {PREFIX + name: tensor for name, tensor in weights.items()}


def is_hub_trunk(tensors: Mapping[str, Tensor], timm_name: str) -> bool:
    """Return whether the trunk among these tensors is timm's, value by value; False where there is none."""
    try:
        hub = hub_tensors(timm_name, model="the trunk")
    except WeightsUnavailable:
        return False
    mine = {name: tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    return mine.keys() == hub.keys() and all(torch.equal(mine[name], hub[name]) for name in hub)


def require_hub_trunk(timm_name: str, trunk_sha256: str, owner: str) -> dict[str, Tensor]:
    """Return the trunk that a file left out, after checking that it is the one it was made with.

    Raises:
        WeightsRejected: timm gives another one.
        WeightsUnavailable: it gives none.
    """
    tensors = hub_tensors(timm_name, model=owner)
    if weights_digest(tensors) != trunk_sha256:
        raise WeightsRejected(
            "other_backbone",
            f"{owner} was made with another {timm_name} than timm now gives: convert the published file "
            "again with import-weights --whole, which keeps the trunk in the file",
        )
    return tensors
