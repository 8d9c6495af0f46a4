"""Loading a model by name or weights file: as an extractor, as a network, or as its card alone.

timm, which takes seconds to import, is imported only where a network is built.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import torch

from models.card import make_card, resized_card
from models.checkpoints.lite0_package import installed_tensors
from models.checkpoints.tensors import weights_digest
from models.checkpoints.weights_file import load_file, read_card
from models.custom.reference import CUSTOM, is_reference
from models.errors import UnknownModel, WeightsUnavailable
from models.extractor import Extractor
from models.names import DEFAULT_MODEL, MODEL_NAMES, SELAVPRPP_MODELS
from models.networks.descriptions import EfficientNetDescription
from models.networks.local_layer import LocalLayer
from models.runtime.execution import AS_USUAL, Execution, best_device
from storage.card import Card

if TYPE_CHECKING:
    from models.custom.network import OwnNetwork
    from models.networks.efficientnet import EfficientNetLite0
    from models.networks.selavpr import SelaVPR
    from models.networks.selavprpp import SelaVPRpp

__all__ = ["load_card", "load_extractor", "load_network"]


def load_extractor(
    name_or_path: str,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    image_size: tuple[int, int] | None = None,
    local: LocalLayer | EllipsisType | None = ...,
    execution: Execution = AS_USUAL,
) -> Extractor:
    """Load a model for inference, by name or from a safetensors file that placeray wrote.

    Args:
        name_or_path: One of `MODEL_NAMES`, or a path.
        device: See `Extractor`.
        dtype: See `Extractor`. Default: as `execution` specifies.
        image_size: Height and width of the network's input in pixels. Default: that of the model.
        local: Layer that gives local features to a model without a head for them; None: the last tokens, as
            in stores whose card names no layer. Default: that of the model.
        execution: Precision and compilation.

    Raises:
        UnknownModel, WeightsUnavailable, WeightsRejected, BadImageSize: as `load_network`.
    """
    _require_trained(name_or_path)
    network, card = load_network(name_or_path, image_size=image_size)
    layer = _layer(network.description, local)
    if layer is not None:
        network.local_layer = layer
        card = layer.on(card)
    device = best_device() if device is None else torch.device(device)
    dtype = execution.dtype(device) if dtype is None else dtype
    return Extractor(network, card, device=device, dtype=dtype, compile_network=execution.compiled)


def load_network(
    name_or_path: str, *, image_size: tuple[int, int] | None = None
) -> tuple[SelaVPR | SelaVPRpp | EfficientNetLite0 | OwnNetwork, Card]:
    """Load a model's network and its card, to train or inspect it.

    Args:
        name_or_path: One of `MODEL_NAMES`, or the path of a safetensors file that placeray wrote.
        image_size: Height and width of the network's input in pixels. Default: that of the model.

    Returns:
        network: On the CPU, in float32 and channels last, in evaluation mode.
        card: Its card.

    Raises:
        UnknownModel: neither a known name nor a file.
        WeightsUnavailable: a named model's weights are not installed and cannot be downloaded.
        WeightsRejected: the file is damaged, altered or not a weights file.
        BadImageSize: the model does not support this input size.
    """
    if is_reference(name_or_path):
        from models.custom.own import load_own

        own, card = load_own(name_or_path)
        return own.to(memory_format=torch.channels_last), resized_card(card, own, image_size)
    if name_or_path in MODEL_NAMES:
        from models.checkpoints.pretrained import load_named

        network = load_named(name_or_path)
        card = make_card(network, weights_sha256=weights_digest(network.state_dict()))
    else:
        network, card = load_file(_weights_path(name_or_path))
    card = resized_card(card, network, image_size)
    return network.eval().to(memory_format=torch.channels_last), card


def load_card(
    name_or_path: str,
    *,
    image_size: tuple[int, int] | None = None,
    local: LocalLayer | EllipsisType | None = ...,
) -> Card:
    """Return the card that `load_extractor` would give its extractor, without building the network.

    The default model and weights files are hashed from disk. A SelaVPR model by name is loaded, and
    downloaded first if necessary, since its card depends on the weights of its backbone.

    Args:
        name_or_path: One of `MODEL_NAMES`, or the path of a safetensors file that placeray wrote.
        image_size: As of `load_extractor`.
        local: As of `load_extractor`.

    Raises:
        UnknownModel, WeightsUnavailable, WeightsRejected, BadImageSize: as `load_network`.
    """
    if name_or_path == DEFAULT_MODEL:
        description = EfficientNetDescription()
        card = make_card(description, weights_sha256=weights_digest(installed_tensors()))
        return resized_card(card, description, image_size)
    _require_trained(name_or_path)
    described: Any
    if name_or_path in MODEL_NAMES or is_reference(name_or_path):
        network, card = load_network(name_or_path, image_size=image_size)
        described = network.description
    else:
        card, described = read_card(_weights_path(name_or_path))
        card = resized_card(card, described, image_size)
    layer = _layer(described, local)
    return card if layer is None else layer.on(card)


def _layer(described: Any, local: LocalLayer | EllipsisType | None) -> LocalLayer | None:
    """Return the layer to use; None for models whose local features are their own."""
    default: LocalLayer | None = getattr(described, "local_layer", None)
    return default if default is None or local is ... else local


def _require_trained(name: str) -> None:
    """Refuse a name that stands for untrained weights alone, which would find nothing.

    Raises:
        WeightsUnavailable: it is that of a SelaVPR++.
    """
    if name in SELAVPRPP_MODELS:
        raise WeightsUnavailable(
            f"the weights of {name} do not come with placeray: convert the authors' file with `placeray "
            "import-weights FILE --out FILE.safetensors` and give that file, or train your own with "
            f"`placeray finetune --model {name}`"
        )


def _weights_path(name_or_path: str) -> Path:
    if name_or_path.startswith(CUSTOM):
        raise UnknownModel(
            f"the store was made by a model of your own, {name_or_path}, whose file no store remembers: give "
            "it again with --model FILE.toml"
        )
    if name_or_path.endswith(".safetensors") or os.path.exists(name_or_path):
        return Path(name_or_path)
    raise UnknownModel(
        f"unknown model or file {name_or_path!r}: use one of {', '.join(MODEL_NAMES)}, timm:NAME, "
        "or the path of a safetensors file or of a model file (.toml)"
    )
