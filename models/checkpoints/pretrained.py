"""Models by name: the default from its pip package, DINOv2 backbones through timm's hub.

A SelaVPR model by name is untrained: a DINOv2 backbone with adapters that do not change its output.
"""

from __future__ import annotations

import timm
import torch
from torch import Tensor

from models.checkpoints.lite0_package import PACKAGE, installed_tensors
from models.checkpoints.tensors import fill
from models.errors import WeightsRejected, WeightsUnavailable
from models.names import DEFAULT_MODEL, SELAVPR_MODELS
from models.networks.architecture import Architecture
from models.networks.block_adapters import untrained_adapters
from models.networks.build import build_selavpr
from models.networks.descriptions import SelaVPRDescription
from models.networks.efficientnet import EfficientNetLite0
from models.networks.selavpr import SelaVPR

__all__ = [
    "load_named",
    "untrained_parts",
]

_ALTERNATIVES = f"use the offline default model {DEFAULT_MODEL}, or pass the path of a safetensors file"


def load_named(name: str) -> SelaVPR | EfficientNetLite0:
    """Load one of `models.names.MODEL_NAMES`.

    Raises:
        WeightsUnavailable: its weights are not available.
    """
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
    try:
        source = timm.create_model(timm_name, pretrained=True, num_classes=0)
    except Exception as error:  # hub clients raise exceptions of many libraries
        raise WeightsUnavailable(
            f"the DINOv2 weights of {name} are not available ({type(error).__name__}: timm's {timm_name} "
            f"needs the network or a filled cache): {_ALTERNATIVES}"
        ) from error
    weights = source.state_dict()
    scales = weights["blocks.0.ls1.gamma"]
    if bool((scales == scales[0]).all()):
        raise WeightsUnavailable(f"timm gave {timm_name} without trained weights: {_ALTERNATIVES}")
    architecture = Architecture.of_size(size, registers=registers)
    model = build_selavpr(SelaVPRDescription(architecture, local_head=False))
    tensors = {f"backbone.vit.{key}": tensor for key, tensor in weights.items()}
    fill(model, tensors | untrained_parts(architecture))
    return model


def untrained_parts(architecture: Architecture) -> dict[str, Tensor]:
    """Return the tensors that a DINOv2 backbone lacks: untrained adapters and GeM's initial exponent."""
    adapters = untrained_adapters(architecture).state_dict()
    return {f"backbone.adapters.{name}": tensor for name, tensor in adapters.items()} | {
        "gem_p": torch.full((1,), 3.0)
    }
