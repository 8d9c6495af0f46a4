"""Any timm backbone: pooled descriptors, and local features of a late layer or of a map at stride 16."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.custom.definition import InputRule, LocalRule
from storage.card import Preprocessing

__all__ = ["TimmOutputs", "default_local", "input_rule"]

_STRIDE = 16


class TimmOutputs(nn.Module):
    """Returns a timm network's pooled features and, for convolutional ones, a map of local features.

    Of a convolutional network the map is that of the last stage whose cells are at most 16 pixels wide; the
    last stage's cells, of 32 pixels, say too little about where they are.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network
        self._stage = None if has_attention_values(network) else _stage_of(network)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor] | tuple[Tensor]:
        """Map (B, 3, h, w) to (B, D) features before the classifier, and to (B, C, H, W) maps."""
        if self._stage is None:
            features = self.network.forward_features(images)
            return (self._pooled(features),)
        last, maps = self.network.forward_intermediates(images, indices=[self._stage], norm=False)
        return self._pooled(last), maps[0]

    def _pooled(self, features: Tensor) -> Tensor:
        pooled: Tensor = self.network.forward_head(features, pre_logits=True)
        return pooled if pooled.ndim == 2 else pooled.flatten(2).mean(dim=2)


def has_attention_values(network: Any) -> bool:
    """Return whether it is a plain vision transformer with a class token, whose values can be taken."""
    try:
        block = network.blocks[0]
        plain = isinstance(block.attn.qkv, nn.Linear) and hasattr(block, "norm1")
    except (AttributeError, TypeError, IndexError):
        return False
    rotary = getattr(network, "rope", None) is not None
    return plain and not rotary and getattr(network, "cls_token", None) is not None


def default_local(outputs: TimmOutputs) -> LocalRule | None:
    """Return where the local features of a timm network come from."""
    if has_attention_values(outputs.network):
        return LocalRule(module="network", layer={"layer": -2})
    return None if outputs._stage is None else LocalRule(output=1, min_similarity=0.6)


def input_rule(network: Any) -> InputRule:
    """Return the input that timm says the weights were trained with; other sizes where the network can."""
    from timm.data.config import resolve_model_data_config

    config: Any = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    _, height, width = config["input_size"]
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if patch is None:
        multiple = 32
    else:
        side = patch[0] if isinstance(patch, tuple) else int(patch)
        multiple = side if getattr(network, "dynamic_img_size", False) else 0
    mean, std = ((float(a), float(b), float(c)) for a, b, c in (config["mean"], config["std"]))
    return InputRule(Preprocessing("pil_bilinear", height, width, mean, std), multiple)


def _stage_of(network: Any) -> int | None:
    """Return the index of the last stage of stride 16 or less, among those of `forward_intermediates`."""
    if not hasattr(network, "forward_intermediates"):
        return None
    with torch.inference_mode():
        try:
            _, maps = network.eval().forward_intermediates(torch.zeros(1, 3, 224, 224), norm=False)
        except Exception:  # of another input size, or without maps
            return None
    fine = [at for at, each in enumerate(maps) if each.ndim == 4 and 224 // each.shape[-1] <= _STRIDE]
    return fine[-1] if fine else None
