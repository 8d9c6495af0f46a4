"""Translation of published DINOv2 and SelaVPR state dicts to the names and shapes of this project.

Reading files is the task of `models.checkpoints.importing`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from torch import Tensor

from models.networks.architecture import PATCH_PX, Architecture

__all__ = ["UnknownLayout", "published_name", "read_architecture", "translate"]

_MAX_DEPTH = 100
_RENAMED = (
    (r"backbone\.blocks\.(\d+)\.adapter1\.D_fc1\.", r"backbone.adapters.\1.serial.down."),
    (r"backbone\.blocks\.(\d+)\.adapter1\.D_fc2\.", r"backbone.adapters.\1.serial.up."),
    (r"backbone\.blocks\.(\d+)\.adapter2\.D_fc1\.", r"backbone.adapters.\1.parallel.down."),
    (r"backbone\.blocks\.(\d+)\.adapter2\.D_fc2\.", r"backbone.adapters.\1.parallel.up."),
    (r"backbone\.blocks\.(\d+)\.mlp\.w12\.", r"backbone.vit.blocks.\1.mlp.fc1."),
    (r"backbone\.blocks\.(\d+)\.mlp\.w3\.", r"backbone.vit.blocks.\1.mlp.fc2."),
    (r"backbone\.register_tokens$", r"backbone.vit.reg_token"),
    (r"backbone\.(?!adapters\.|vit\.)", r"backbone.vit."),
    (r"aggregation\.1\.p$", r"gem_p"),
    (r"LocalAdapt\.upconv1\.", r"local_head.first."),
    (r"LocalAdapt\.upconv2\.", r"local_head.second."),
)


_PUBLISHED = (
    (r"backbone\.adapters\.(\d+)\.serial\.down\.", r"backbone.blocks.\1.adapter1.D_fc1."),
    (r"backbone\.adapters\.(\d+)\.serial\.up\.", r"backbone.blocks.\1.adapter1.D_fc2."),
    (r"backbone\.adapters\.(\d+)\.parallel\.down\.", r"backbone.blocks.\1.adapter2.D_fc1."),
    (r"backbone\.adapters\.(\d+)\.parallel\.up\.", r"backbone.blocks.\1.adapter2.D_fc2."),
    (r"backbone\.vit\.reg_token$", "backbone.register_tokens"),
    (r"backbone\.vit\.", "backbone."),
    (r"gem_p$", "aggregation.1.p"),
    (r"local_head\.first\.", "LocalAdapt.upconv1."),
    (r"local_head\.second\.", "LocalAdapt.upconv2."),
)


class UnknownLayout(Exception):
    """The tensors are not those of a DINOv2 or SelaVPR model."""


def translate(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename published tensors to those of `SelaVPR.state_dict()`.

    Args:
        published: State dict of a SelaVPR model (names may start with `module.`) or of a plain DINOv2 one.

    Returns:
        The renamed tensors; adapters, pooling exponent and local head only if present.

    Raises:
        UnknownLayout: two tensors get the same name.
    """
    names = {name: name.removeprefix("module.") for name in published}
    if "patch_embed.proj.weight" in names.values():
        names = {name: f"backbone.{plain}" for name, plain in names.items()}
    tensors: dict[str, Tensor] = {}
    for name, plain in names.items():
        if plain == "backbone.mask_token":  # used by DINOv2's own training only
            continue
        for pattern, replacement in _RENAMED:
            plain = re.sub(f"^{pattern}", replacement, plain)
        if plain in tensors:
            raise UnknownLayout(f"two tensors are named {plain}")
        tensors[plain] = published[name]
    if "backbone.vit.reg_token" in tensors:
        _fold_class_position(tensors)
    return tensors


def published_name(name: str) -> str:
    """Return what the published files call a tensor of `SelaVPR.state_dict()`."""
    for pattern, replacement in _PUBLISHED:
        name = re.sub(f"^{pattern}", replacement, name)
    return name


def _fold_class_position(tensors: dict[str, Tensor]) -> None:
    """Add its position to the class token: timm's register models store positions of patches only."""
    grid, token = tensors.get("backbone.vit.pos_embed"), tensors.get("backbone.vit.cls_token")
    if grid is None or token is None or grid.ndim != 3 or token.shape != grid[:, :1].shape:
        raise UnknownLayout("class token and position embeddings do not fit")
    tensors["backbone.vit.cls_token"] = token + grid[:, :1]
    tensors["backbone.vit.pos_embed"] = grid[:, 1:].contiguous()


def read_architecture(tensors: Mapping[str, Tensor], *, num_heads: int | None = None) -> Architecture:
    """Infer the shape of the vision transformer from its tensors, as `translate` names them.

    Args:
        tensors: By name.
        num_heads: Attention heads, which cannot be inferred. Default: one per 64 channels, as in every
            published model, or per 32 where the width is not a multiple of 64.

    Raises:
        UnknownLayout: a tensor needed for this is missing or has an invalid shape.
    """
    patch = _shape(tensors, "backbone.vit.patch_embed.proj.weight", 4)
    if patch[1:] != (3, PATCH_PX, PATCH_PX):
        raise UnknownLayout(f"patches are {patch[1:]}, not 3 x {PATCH_PX} x {PATCH_PX}")
    width = patch[0]
    heads = num_heads or max(1, width // 64 if width % 64 == 0 else width // 32)
    if width % heads or width < 2:
        raise UnknownLayout(f"{width} channels cannot be shared by {heads} attention heads")
    registers = _shape(tensors, "backbone.vit.reg_token", 3)[1] if "backbone.vit.reg_token" in tensors else 0
    positions = _shape(tensors, "backbone.vit.pos_embed", 3)[1] - (0 if registers else 1)
    side = math.isqrt(max(0, positions))
    if side < 1 or side * side != positions:
        raise UnknownLayout(f"{positions} position embeddings do not form a square grid")
    mlp_in = _shape(tensors, "backbone.vit.blocks.0.mlp.fc1.weight", 2)[0]
    mlp_out = _shape(tensors, "backbone.vit.blocks.0.mlp.fc2.weight", 2)[1]
    return Architecture(
        width=width,
        depth=_depth(tensors),
        num_heads=heads,
        mlp_width=mlp_in,
        registers=registers,
        gated_mlp=mlp_in == 2 * mlp_out,
        position_grid=side,
    )


def _shape(tensors: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    tensor = tensors.get(name)
    if tensor is None or tensor.ndim != dimensions:
        raise UnknownLayout(f"{published_name(name)} is missing or has the wrong number of dimensions")
    return tuple(tensor.shape)


def _depth(tensors: Mapping[str, Tensor]) -> int:
    numbers = {
        int(match[1]) for name in tensors if (match := re.match(r"backbone\.vit\.blocks\.(\d{1,9})\.", name))
    }
    if numbers != set(range(len(numbers))) or not 0 < len(numbers) <= _MAX_DEPTH:
        raise UnknownLayout(f"blocks {sorted(numbers)[:5]}... are not numbered from 0 up to {_MAX_DEPTH - 1}")
    return len(numbers)
