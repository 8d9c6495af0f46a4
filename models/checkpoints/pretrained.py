"""Models by name: the default from its pip package, DINOv2 backbones through timm's hub.

A SelaVPR model by name is untrained: a DINOv2 backbone with adapters that do not change its output.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.checkpoints.hub_trunk import hub_tensors
from models.checkpoints.lite0_package import PACKAGE, installed_tensors
from models.checkpoints.tensors import fill
from models.checkpoints.untrained_selavprpp import untrained_selavprpp
from models.errors import WeightsRejected, WeightsUnavailable
from models.names import DEFAULT_MODEL, SELAVPR_MODELS, SELAVPRPP_MODELS
from models.networks.architecture import Architecture
from models.networks.block_adapters import untrained_adapters
from models.networks.build import build_selavpr
from models.networks.descriptions import SelaVPRDescription
from models.networks.efficientnet import EfficientNetLite0
from models.networks.selavpr import SelaVPR
from models.networks.selavprpp import SelaVPRpp

__all__ = [
    "load_named",
    "untrained_parts",
]


def load_named(name: str) -> SelaVPR | SelaVPRpp | EfficientNetLite0:
    """Load one of `models.names.MODEL_NAMES`; a SelaVPR++ by name is untrained.

    Raises:
        WeightsUnavailable: its weights are not available.
    """
    if name in SELAVPRPP_MODELS:
        return _load_selavprpp(name)
    return _load_efficientnet() if name == DEFAULT_MODEL else _load_dinov2(name)


def _load_efficientnet() -> EfficientNetLite0:
    network, tensors = EfficientNetLite0(), installed_tensors()
    try:
        fill(network, tensors)
    except WeightsRejected as error:
        raise WeightsUnavailable(
            f"the installed weights do not fit {DEFAULT_MODEL}: reinstall {PACKAGE}"
        ) from error
    return network


def _load_dinov2(name: str) -> SelaVPR:
    """Load a DINOv2 backbone through timm's hub, with untrained adapters."""
    size, registers, timm_name = SELAVPR_MODELS[name]
    tensors = hub_tensors(timm_name, model=name)
    architecture = Architecture.of_size(size, registers=registers)
    model = build_selavpr(SelaVPRDescription(architecture, local_head=False))
    fill(model, tensors | untrained_parts(architecture))
    return model


def _load_selavprpp(name: str) -> SelaVPRpp:
    """Load a DINOv2 trunk through timm's hub, with an untrained float branch."""
    size, _, timm_name = SELAVPRPP_MODELS[name]
    trunk = hub_tensors(timm_name, model=name)
    return untrained_selavprpp(Architecture.of_size(size), trunk, trunk_name=timm_name)


def untrained_parts(architecture: Architecture) -> dict[str, Tensor]:
    """Return the tensors that a DINOv2 backbone lacks: untrained adapters and GeM's initial exponent."""
    adapters = untrained_adapters(architecture).state_dict()
    return {f"backbone.adapters.{name}": tensor for name, tensor in adapters.items()} | {
        "gem_p": torch.full((1,), 3.0)
    }
