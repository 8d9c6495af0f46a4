"""Local features out of the attention of a timm block: values, keys or queries of attended cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.networks.local_layer import LocalLayer

__all__ = ["attention_features"]

_PARTS = ("query", "key", "value")


def attention_features(block: Any, tokens: Tensor, local: LocalLayer, *, prefix: int) -> Tensor:
    """Return the local features that a block's attention gives to patches.

    With x the normed input of the attention, q, k, v = x W_q, x W_k, x W_v; a patch's feature is its v of all
    heads, of unit norm, or zeros where the mean over the heads of softmax(q_cls k^T / sqrt(d)), the attention
    that the class token pays it, is not among the largest `attended_share` of all patches. Equally attended
    patches are kept or left out together.

    Args:
        block: timm's block with one linear layer for queries, keys and values.
        tokens: (B, prefix + N, C) float, the block's input, the class token first.
        local: Which part, and which share of the cells.
        prefix: Number of tokens before the patches.

    Returns:
        (B, N, C) float32, unit L2 norm per cell or zeros.
    """
    attention = block.attn
    count, length, _ = tokens.shape
    parts = attention.qkv(block.norm1(tokens)).reshape(count, length, 3, attention.num_heads, -1)
    vectors = dict(zip(_PARTS, parts.permute(2, 0, 3, 1, 4).unbind(0), strict=True))
    vectors["query"] = attention.q_norm(vectors["query"])
    vectors["key"] = attention.k_norm(vectors["key"])
    cells: Tensor = vectors[local.part][:, :, prefix:].transpose(1, 2).flatten(2).float()
    return _attended(F.normalize(cells, dim=-1), vectors["query"], vectors["key"], prefix, local)


def _attended(cells: Tensor, query: Tensor, key: Tensor, prefix: int, local: LocalLayer) -> Tensor:
    """Set the cells to zero that the class token attends to least."""
    kept = max(1, round(local.attended_share * cells.shape[1]))
    if kept == cells.shape[1]:
        return cells
    with torch.autocast(cells.device.type, enabled=False):
        scores = query[:, :, :1].float() @ key.float().transpose(2, 3) / query.shape[-1] ** 0.5
        paid = scores.softmax(dim=-1)[:, :, 0, prefix:].mean(dim=1)
    least: Tensor = paid.topk(kept, dim=1).values[:, -1:]
    return cells * (paid >= least)[:, :, None]  # type: ignore[no-any-return]
