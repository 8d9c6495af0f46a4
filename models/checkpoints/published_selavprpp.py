"""Translation of published SelaVPR++ state dicts to the names of this project, and their shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from models.checkpoints.published import UnknownLayout, read_architecture
from models.networks.selavprpp_description import SelaVPRppDescription

__all__ = ["is_selavprpp", "published_name", "read_description", "translate"]

_ADAPTER = {
    "D_fc1": "down",
    "D_fc2": "up",
    "branch1": "point",
    "branch2": "three",
    "branch3": "five",
    "bn": "norm",
}
# Beginnings of names.
_RENAMED = (
    ("backbone.adapters.", "float_branch.adapters."),
    ("backbone.adapters_hashing.", "hash_branch.adapters."),
    ("backbone.", "backbone.vit."),
    ("aggregation.1.p", "float_branch.gem_p"),
    ("aggregation_hashing.1.p", "hash_branch.gem_p"),
    ("linear1.", "float_branch.cells."),
    ("linear2.", "float_branch.head."),
    ("linear3.", "hash_branch.cells."),
    ("linear4.", "hash_branch.head."),
)
_UNUSED = "backbone.mask_token"  # of DINOv2's own training
_NARROWEST_PUBLISHED = 384


def is_selavprpp(published: Mapping[str, Tensor]) -> bool:
    """Return whether tensors are those of SelaVPR++, by the convolutions of its adapters."""
    pattern = re.compile(r"(module\.)?backbone\.adapters(_hashing)?\.\d+\.branch1\.")
    return any(pattern.match(name) for name in published)


def translate(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename published tensors to those of `SelaVPRpp.state_dict()`, floating-point ones as float32.

    Raises:
        UnknownLayout: two tensors get the same name, or DINOv2's mask token is missing, which every published
            file has.
    """
    tensors: dict[str, Tensor] = {}
    if not any(name.removeprefix("module.") == _UNUSED for name in published):
        raise UnknownLayout(f"{_UNUSED} is missing")
    for name, tensor in published.items():
        plain = name.removeprefix("module.")
        if plain == _UNUSED:
            continue
        plain = _renamed(plain, dict(_RENAMED), _ADAPTER)
        if plain in tensors:
            raise UnknownLayout(f"two tensors are named {plain}")
        tensors[plain] = tensor.float() if tensor.is_floating_point() else tensor
    return tensors


def published_name(name: str) -> str:
    """Return what the published files call a tensor of `SelaVPRpp.state_dict()`."""
    beginnings = {ours: theirs for theirs, ours in _RENAMED}
    return _renamed(name, beginnings, {ours: theirs for theirs, ours in _ADAPTER.items()})


def _renamed(name: str, beginnings: Mapping[str, str], parts: Mapping[str, str]) -> str:
    """Return a name with another beginning and, of an adapter's tensor, other parts."""
    for beginning, other in beginnings.items():
        if name.startswith(beginning):
            name = other + name.removeprefix(beginning)
            break
    if ".adapters" not in name:
        return name
    return ".".join(parts.get(part, part) for part in name.split("."))


def read_description(tensors: Mapping[str, Tensor], *, num_heads: int | None = None) -> SelaVPRppDescription:
    """Infer the shape of a model from its tensors, as `translate` names them.

    Args:
        tensors: By name.
        num_heads: Attention heads, which cannot be inferred. Default: one per 64 channels as in the published
            models, one per 32 in narrower models than any that is published.

    Raises:
        UnknownLayout: a tensor needed for this is missing or has an invalid shape.
    """
    if num_heads is None:
        num_heads = _default_heads(tensors)
    architecture = read_architecture(tensors, num_heads=num_heads)
    adapters = _count(tensors, "float_branch.adapters.")
    if not 0 < adapters <= architecture.depth:
        raise UnknownLayout(f"{adapters} adapters for {architecture.depth} blocks")
    hashing = any(name.startswith("hash_branch.") for name in tensors)
    if architecture.width % 32 or architecture.registers or architecture.gated_mlp:
        raise UnknownLayout(f"a trunk of {architecture} is not one of SelaVPR++")
    return SelaVPRppDescription(
        architecture,
        adapters=adapters,
        float_dim=_rows(tensors, "float_branch.head.weight"),
        code_bits=_code_bits(tensors) if hashing else None,
    )


def _default_heads(tensors: Mapping[str, Tensor]) -> int | None:
    patch = tensors.get("backbone.vit.patch_embed.proj.weight")
    if patch is None or patch.ndim != 4 or patch.shape[0] >= _NARROWEST_PUBLISHED:
        return None
    return max(1, patch.shape[0] // 32)


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    pattern = re.compile(re.escape(prefix) + r"(\d{1,9})\.")
    numbers = {int(match[1]) for name in tensors if (match := pattern.match(name))}
    if numbers != set(range(len(numbers))):
        raise UnknownLayout(f"{published_name(prefix)}N are not numbered from 0")
    return len(numbers)


def _rows(tensors: Mapping[str, Tensor], name: str) -> int:
    tensor = tensors.get(name)
    if tensor is None or tensor.ndim != 2:
        raise UnknownLayout(f"{published_name(name)} is missing or has the wrong number of dimensions")
    return int(tensor.shape[0])


def _code_bits(tensors: Mapping[str, Tensor]) -> int:
    bits = _rows(tensors, "hash_branch.head.weight")
    if bits % 8:
        raise UnknownLayout(f"codes of {bits} bits are not whole bytes")
    return bits
