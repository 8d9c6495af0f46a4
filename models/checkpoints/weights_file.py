"""Weights files: safetensors with the model's card and architecture in the metadata.

No code in a file is executed, and the file is rejected unless its tensors have the digest on its card.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import safetensors
import safetensors.torch
from torch import Tensor, nn

from models.card import make_card
from models.checkpoints.lite0_package import require_installed
from models.checkpoints.published import UnknownLayout, read_architecture
from models.checkpoints.published_selavprpp import read_description
from models.checkpoints.tensors import fill, require_finite, weights_digest
from models.errors import WeightsRejected
from models.names import DEFAULT_MODEL, SELAVPRPP_MODELS
from models.networks.architecture import Architecture
from models.networks.descriptions import ADAPTED_MODEL, EfficientNetDescription, SelaVPRDescription
from models.networks.selavprpp_description import SelaVPRppDescription
from storage.card import Card, Preprocessing
from storage.durable import replace_file
from storage.errors import CardMismatch, CorruptStore

if TYPE_CHECKING:
    from models.networks.efficientnet import EfficientNetLite0
    from models.networks.selavpr import SelaVPR
    from models.networks.selavprpp import SelaVPRpp

__all__ = ["load_file", "read_card", "save_weights"]

Description = SelaVPRDescription | SelaVPRppDescription | EfficientNetDescription

_TRUNK = "backbone.vit."
# What a weights file may choose; everything else on its card follows from its tensors.
_FREE_FIELDS = ("format_version", "min_similarity", "aggregation", "score")

# Raised when parsing malformed metadata.
_MALFORMED = (KeyError, ValueError, TypeError, AttributeError, RecursionError)


def save_weights(
    path: str | Path,
    model: nn.Module,
    *,
    preprocessing: Preprocessing | None = None,
    aggregation: Literal["learned", "gem"] | None = None,
    score: Literal["votes", "count"] | None = None,
) -> Card:
    """Write a model with its card to a safetensors file, atomically.

    For an adapted `EfficientNetLite0` the file holds the trained tensors only: the frozen ones are read from
    the installed package when it is loaded; likewise for a `SelaVPRpp` whose trunk is that of timm's hub. The
    digest on the card covers both.

    Args:
        path: The file to write or replace.
        model: A `SelaVPR`, `SelaVPRpp` or `EfficientNetLite0`.
        preprocessing: The preprocessing it was trained with. Default: the model's own.
        aggregation: The default of its stores; None: that of the architecture.
        score: Likewise.

    Returns:
        The card, also stored inside the file.

    Raises:
        TypeError: the model is of another class.
        WeightsRejected: a weight is not finite, or the frozen tensors of an adapted model are not the
            installed ones.
        OutOfSpace: the disk is full; a previous file is unchanged.
    """
    description = getattr(model, "description", None)
    if not isinstance(description, Description):
        raise TypeError(
            f"cannot save a {type(model).__name__}: pass a SelaVPR, SelaVPRpp or EfficientNetLite0"
        )
    tensors = _separate(
        {
            name: (tensor.float() if tensor.is_floating_point() else tensor).detach().cpu().contiguous()
            for name, tensor in model.state_dict().items()
        }
    )
    require_finite(tensors)
    network: Any = model
    card = make_card(network, weights_sha256=weights_digest(tensors), preprocessing=preprocessing)
    card = dataclasses.replace(card, aggregation=aggregation, score=score)
    shape: dict[str, Any] = {"kind": description.name}
    if isinstance(description, SelaVPRDescription):
        shape = {"kind": "selavpr", "local_head": description.local_head}
        shape |= dataclasses.asdict(description.architecture)
    elif isinstance(description, SelaVPRppDescription):
        shape = {"kind": "selavprpp", **dataclasses.asdict(description)}
        if (trunk := getattr(model, "trunk_name", None)) is not None:
            left_out = {name: tensors.pop(name) for name in [*tensors] if name.startswith(_TRUNK)}
            shape |= {"trunk": trunk, "trunk_sha256": weights_digest(left_out)}
    elif description.name == ADAPTED_MODEL:
        frozen = weights_digest({name: tensors.pop(name) for name in [*tensors] if _is_frozen(name)})
        shape |= dataclasses.asdict(description) | {"frozen_sha256": frozen}
        require_installed(frozen, f"the {ADAPTED_MODEL} to save")
    metadata = {"format": "pt", "placeray_card": card.to_json(), "placeray_architecture": json.dumps(shape)}
    replace_file(Path(path), safetensors.torch.save(tensors, metadata=metadata))
    return card


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors, copied where several share their memory, which safetensors does not write."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return tensors


def load_file(path: Path) -> tuple[SelaVPR | SelaVPRpp | EfficientNetLite0, Card]:
    """Build the model of a weights file.

    Raises:
        WeightsRejected: the file cannot be trusted.
        WeightsUnavailable: the frozen tensors of an adapted model are not installed, or timm's hub does not
            give the trunk that the file leaves out.
    """
    from models.networks.build import build_network  # loads timm, which the card alone does not need

    tensors, card, description, trunk = _read(path, in_memory=True)
    model = build_network(description)
    fill(model, tensors)
    model.min_similarity = card.min_similarity
    if isinstance(description, SelaVPRppDescription):
        model.trunk_name = trunk
    return model, card


def read_card(path: Path) -> tuple[Card, Description]:
    """Return the card and the description of a weights file; its tensors are hashed but not loaded.

    Raises:
        WeightsRejected, WeightsUnavailable: as `load_file`.
    """
    _, card, description, _ = _read(path, in_memory=False)
    return card, description


def _read(path: Path, *, in_memory: bool) -> tuple[dict[str, Tensor], Card, Description, str | None]:
    """Return a file's tensors with those of its frozen network, after checking them against its card.

    The last value is timm's name of the trunk, if the file leaves it out.
    """
    if not path.is_file():
        raise WeightsRejected("not_a_file", f"{path} is not a file: pass a safetensors file")
    tensors, metadata = _read_tensors(path, in_memory=in_memory)
    trunk = None
    try:
        card = Card.from_json(metadata["placeray_card"])
        shape = json.loads(metadata["placeray_architecture"])
        if "trunk" in shape:
            trunk = _known_trunk(shape["trunk"])
            tensors |= _hub_trunk(trunk, str(shape["trunk_sha256"]), str(path))
        description = _description_of(shape, tensors)
        digest, preprocessing = card.weights_sha256, card.preprocessing
        expected = make_card(description, weights_sha256=digest, preprocessing=preprocessing)
        if card != dataclasses.replace(expected, **{name: getattr(card, name) for name in _FREE_FIELDS}):
            raise ValueError("the card describes another model")
    except (*_MALFORMED, CorruptStore, CardMismatch, UnknownLayout) as error:
        raise WeightsRejected(
            "wrong_card", f"{path} was not written by this placeray ({error}): save or import it again"
        ) from error
    if "frozen_sha256" in shape:
        tensors |= require_installed(str(shape["frozen_sha256"]), str(path))
    if weights_digest(tensors) != card.weights_sha256:
        raise WeightsRejected("wrong_sha256", f"{path} has been altered since it was written: copy it again")
    return tensors, card, description, trunk


def _hub_trunk(name: str, trunk_sha256: str, owner: str) -> dict[str, Tensor]:
    from models.checkpoints.hub_trunk import require_hub_trunk  # loads timm

    return require_hub_trunk(name, trunk_sha256, owner)


def _known_trunk(name: object) -> str:
    """Return the name of a trunk that a file leaves out: one of ours, or a file could choose what is loaded.

    Raises:
        ValueError: it is another one.
    """
    if not isinstance(name, str) or name not in {known for _, _, known in SELAVPRPP_MODELS.values()}:
        raise ValueError(f"unknown trunk {name!r}")
    return name


def _read_tensors(path: Path, *, in_memory: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and metadata; unless in memory, the tensors are views of the mapped file."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            if in_memory:
                tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise WeightsRejected(
            "unreadable",
            f"{path} is damaged or not a safetensors file: copy it again, or convert a checkpoint with "
            "`placeray import-weights`",
        ) from error
    return tensors, metadata


def _description_of(shape: dict[str, Any], tensors: Mapping[str, Tensor]) -> Description:
    """Return the description in a file; it must fit the tensors, which bounds the memory to allocate."""
    shape = dict(shape)
    kind = shape.pop("kind")
    if kind == DEFAULT_MODEL:
        return EfficientNetDescription()
    if kind == ADAPTED_MODEL:
        return EfficientNetDescription(tuple(shape["adapter_stages"]), local_head=bool(shape["local_head"]))
    if kind == "selavprpp":
        return _selavprpp_of(shape, tensors)
    if kind != "selavpr":
        raise ValueError(f"unknown kind of model {kind!r}")
    local_head = bool(shape.pop("local_head"))
    heads = shape["num_heads"]
    if type(heads) is not int or heads < 1:
        raise ValueError(f"{heads!r} attention heads")
    architecture = read_architecture(tensors, num_heads=heads)
    if architecture != Architecture(**shape):
        raise ValueError("the shape is not that of the tensors")
    return SelaVPRDescription(architecture, local_head=local_head)


def _selavprpp_of(shape: dict[str, Any], tensors: Mapping[str, Tensor]) -> SelaVPRppDescription:
    heads = shape["architecture"]["num_heads"]
    if type(heads) is not int or heads < 1:
        raise ValueError(f"{heads!r} attention heads")
    description = read_description(tensors, num_heads=heads)
    known = {name: shape[name] for name in ("architecture", "adapters", "float_dim", "code_bits")}
    if dataclasses.asdict(description) != known:
        raise ValueError("the shape is not that of the tensors")
    return description


def _is_frozen(name: str) -> bool:
    return name.startswith("backbone.")
