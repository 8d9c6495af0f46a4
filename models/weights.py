"""The only loader and saver of weights: names, safetensors files, published checkpoints.

Nothing here executes what a file holds: checkpoints are unpickled with `weights_only=True`, with exactly the
NumPy types allowed that published ones contain, and there is no other way in.
"""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy._core.multiarray as numpy_multiarray
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from models.checkpoints.pretrained import (
    WeightsUnavailable,
    empty_model,
    load_named,
    require_installed,
    untrained_parts,
)
from models.checkpoints.published import UnknownLayout, read_architecture, translate
from models.checkpoints.tensors import WeightsRejected, fill, require_finite, weights_digest
from models.extractor import Extractor, make_card
from models.names import DEFAULT_MODEL, MODEL_NAMES
from models.networks.backbone import Architecture
from models.networks.efficientnet import EfficientNetLite0
from models.networks.selavpr import SelaVPR
from models.runtime.execution import AS_USUAL, Execution, best_device
from storage.card import Card, Preprocessing
from storage.durable import replace_file
from storage.errors import CardMismatch, CorruptStore, PlacerayError

__all__ = [
    "MODEL_NAMES",
    "BadImageSize",
    "UnknownModel",
    "WeightsRejected",
    "WeightsUnavailable",
    "import_checkpoint",
    "load_extractor",
    "load_network",
    "save_weights",
    "weights_digest",
]

Model = SelaVPR | EfficientNetLite0

_ADAPTED_MODEL = "efficientnet-lite0-adapted"
_ALLOWED_TYPES: list[Any] = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
    *(
        (function, f"{module}.{name}")
        for name, function in (
            ("_reconstruct", numpy_multiarray._reconstruct),
            ("scalar", numpy_multiarray.scalar),
        )
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
    ),
]
# What reading a file's own description raises where it is not as it was written.
_MALFORMED = (KeyError, ValueError, TypeError, AttributeError, RecursionError)


class UnknownModel(PlacerayError, ValueError):
    """There is no model of this name and no file at this path."""

    reason = "unknown_model"


class BadImageSize(PlacerayError, ValueError):
    """The model does not take input of this size."""

    reason = "bad_image_size"


def load_extractor(
    name_or_path: str,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    image_size: tuple[int, int] | None = None,
    execution: Execution = AS_USUAL,
) -> Extractor:
    """Load a model by name, or from a safetensors file that placeray wrote, to run it.

    Args:
        name_or_path: One of `MODEL_NAMES`, or a path.
        device: See `Extractor`.
        dtype: See `Extractor`; by default what `execution` says.
        image_size: Height and width of the network's input in pixels. Default: as the model was made.
        execution: How to run it.

    Raises:
        UnknownModel, WeightsUnavailable, WeightsRejected, BadImageSize: as `load_network`.
    """
    network, card = load_network(name_or_path, image_size=image_size)
    device = best_device() if device is None else torch.device(device)
    dtype = execution.dtype(device) if dtype is None else dtype
    return Extractor(network, card, device=device, dtype=dtype, compile_network=execution.compiled)


def load_network(
    name_or_path: str, *, image_size: tuple[int, int] | None = None
) -> tuple[SelaVPR | EfficientNetLite0, Card]:
    """Load a model's network and its card, to train it or to look at it.

    Args:
        name_or_path: One of `MODEL_NAMES`, or the path of a safetensors file that placeray wrote.
        image_size: As of `load_extractor`; the card says it.

    Returns:
        network: On the CPU, in float32 and channels last, in evaluation mode.
        card: What the network makes.

    Raises:
        UnknownModel: neither a known name nor a file.
        WeightsUnavailable: a named model's weights cannot be had.
        WeightsRejected: the file cannot be trusted.
        BadImageSize: the model does not take this input size.
    """
    if name_or_path in MODEL_NAMES:
        network: Model = load_named(name_or_path)
        card = make_card(network, weights_sha256=weights_digest(network.state_dict()))
    elif name_or_path.endswith(".safetensors") or os.path.exists(name_or_path):
        network, card = _load_file(Path(name_or_path))
    else:
        raise UnknownModel(
            f"there is no model or file {name_or_path!r}: use one of {', '.join(MODEL_NAMES)}, "
            "or the path of a safetensors file"
        )
    if image_size is not None:
        card = _resized(network, card, image_size)
    return network.eval().to(memory_format=torch.channels_last), card


def _resized(network: Model, card: Card, image_size: tuple[int, int]) -> Card:
    height, width = image_size
    try:
        rows, columns = network.grid(height, width)
    except ValueError as error:
        raise BadImageSize(str(error)) from error
    preprocessing = dataclasses.replace(card.preprocessing, height=height, width=width)
    return dataclasses.replace(card, preprocessing=preprocessing, grid_height=rows, grid_width=columns)


def save_weights(path: str | Path, model: nn.Module, *, preprocessing: Preprocessing | None = None) -> Card:
    """Write a model with its card to a safetensors file, whole or not at all.

    Of an adapted `EfficientNetLite0` the file holds the trained tensors only: the frozen ones come from the
    installed package when it is loaded. The card's digest covers them all.

    Args:
        path: The file to write or replace.
        model: A `SelaVPR` or `EfficientNetLite0`.
        preprocessing: How pixels became its input. Default: the model's own.

    Returns:
        The card, also stored inside the file.

    Raises:
        TypeError: the model is of another class.
        WeightsRejected: a weight is not finite, or the frozen tensors of an adapted model are not the
            installed ones.
        OutOfSpace: the disk is full; a file of before stands.
    """
    if not isinstance(model, SelaVPR | EfficientNetLite0):
        raise TypeError(f"cannot save a {type(model).__name__}: pass a SelaVPR or EfficientNetLite0 model")
    tensors = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    require_finite(tensors)
    card = make_card(model, weights_sha256=weights_digest(tensors), preprocessing=preprocessing)
    shape: dict[str, Any] = {"kind": model.name}
    if isinstance(model, SelaVPR):
        shape = {"kind": "selavpr", "local_head": model.local_head is not None}
        shape |= dataclasses.asdict(model.backbone.architecture)
    elif model.name == _ADAPTED_MODEL:
        frozen = weights_digest({name: tensors.pop(name) for name in [*tensors] if _is_frozen(name)})
        shape |= {"adapter_stages": model.adapter_stages, "local_head": model.local_head is not None}
        shape |= {"frozen_sha256": frozen}
        require_installed(frozen, f"the {_ADAPTED_MODEL} to save")
    metadata = {"format": "pt", "placeray_card": card.to_json(), "placeray_architecture": json.dumps(shape)}
    replace_file(Path(path), safetensors.torch.save(tensors, metadata=metadata))
    return card


def import_checkpoint(pth_path: str | Path, out_path: str | Path, *, num_heads: int | None = None) -> Card:
    """Convert a published SelaVPR checkpoint, or a bare DINOv2 one, to a safetensors file.

    Width, depth, registers and the presence of a local head are read off the tensors. A bare DINOv2
    checkpoint gets untrained adapters, which change nothing.

    Args:
        pth_path: The checkpoint as published.
        out_path: The safetensors file to write.
        num_heads: Attention heads. Default: one for 64 channels, or for 32 where 64 does not divide C.

    Raises:
        WeightsRejected: the file is unsafe, damaged or of another model; nothing in it was executed.
        OutOfSpace: the disk is full.
    """
    published = _state_of(_read_checkpoint(Path(pth_path)))
    try:
        tensors = {name: tensor.float() for name, tensor in translate(published).items()}
        architecture = read_architecture(tensors, num_heads=num_heads)
    except UnknownLayout as error:
        raise WeightsRejected(
            "wrong_layout", f"{pth_path} is no SelaVPR or DINOv2 checkpoint ({error}): pass a published one"
        ) from error
    model = empty_model(architecture, local_head=any(name.startswith("local_head.") for name in tensors))
    if not any(name.startswith(("backbone.adapters.", "gem_p", "local_head.")) for name in tensors):
        tensors |= untrained_parts(architecture)
    fill(model, tensors)
    return save_weights(out_path, model)


def _load_file(path: Path) -> tuple[Model, Card]:
    if not path.is_file():
        raise WeightsRejected("not_a_file", f"{path} is not a file: pass a safetensors file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise WeightsRejected(
            "unreadable",
            f"{path} is no whole safetensors file: copy it again, or convert a checkpoint with "
            "`placeray import-weights`",
        ) from error
    try:
        card = Card.from_json(metadata["placeray_card"])
        shape = json.loads(metadata["placeray_architecture"])
        model = _model_of(shape, tensors)
        expected = make_card(model, weights_sha256=card.weights_sha256, preprocessing=card.preprocessing)
        if card != dataclasses.replace(
            expected, format_version=card.format_version, min_similarity=card.min_similarity
        ):
            raise ValueError("the card describes another model")
    except (*_MALFORMED, CorruptStore, CardMismatch, UnknownLayout) as error:
        raise WeightsRejected(
            "wrong_card", f"{path} was not written by this placeray ({error}): save or import it again"
        ) from error
    if "frozen_sha256" in shape:
        tensors |= require_installed(str(shape["frozen_sha256"]), str(path))
    if weights_digest(tensors) != card.weights_sha256:
        raise WeightsRejected("wrong_sha256", f"{path} has been altered since it was written: copy it again")
    fill(model, tensors)
    model.min_similarity = card.min_similarity
    return model, card


def _is_frozen(name: str) -> bool:
    return name.startswith("backbone.")


def _model_of(shape: dict[str, Any], tensors: dict[str, Tensor]) -> Model:
    """Make the model that a file describes, which is no larger than the tensors that it holds."""
    shape = dict(shape)
    kind = shape.pop("kind")
    if kind == DEFAULT_MODEL:
        return EfficientNetLite0()
    if kind == _ADAPTED_MODEL:
        return EfficientNetLite0(
            adapter_stages=tuple(shape["adapter_stages"]), local_head=bool(shape["local_head"])
        )
    if kind != "selavpr":
        raise ValueError(f"unknown kind of model {kind!r}")
    local_head = bool(shape.pop("local_head"))
    heads = shape["num_heads"]
    if type(heads) is not int or heads < 1:
        raise ValueError(f"{heads!r} attention heads")
    architecture = read_architecture(tensors, num_heads=heads)
    if architecture != Architecture(**shape):
        raise ValueError("the shape is not that of the tensors")
    return empty_model(architecture, local_head=local_head)


def _read_checkpoint(path: Path) -> Any:
    if not path.is_file():
        raise WeightsRejected("not_a_file", f"{path} is not a file: pass the checkpoint itself")
    try:
        # An open file, since torch lets the suffix of a path choose the reader.
        with (
            open(path, "rb") as file,
            warnings.catch_warnings(action="ignore"),
            torch.serialization.safe_globals(_ALLOWED_TYPES),
        ):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged archives raise nearly every built-in type
        if "Unsupported" in str(error):
            raise WeightsRejected(
                "unsafe", f"{path} holds more than tensors and was not opened: get it from its publisher"
            ) from error
        raise WeightsRejected("unreadable", f"{path} is no whole checkpoint: download it again") from error


def _state_of(checkpoint: Any) -> dict[str, Tensor]:
    """Return the tensors of a published checkpoint, which is a dictionary of several things or of tensors."""
    state = checkpoint.get("model_state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if (
        not isinstance(state, dict)
        or not state
        or not all(
            isinstance(name, str) and isinstance(tensor, Tensor) and tensor.is_floating_point()
            for name, tensor in state.items()
        )
    ):
        raise WeightsRejected(
            "wrong_layout",
            "the checkpoint has no model_state_dict of named tensors: pass a published SelaVPR or DINOv2 one",
        )
    return state
