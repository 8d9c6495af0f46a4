"""Self-attention in half precision on a CPU, where torch's fused kernel is slower than two products.

The fused kernel multiplies small blocks sequentially. For the few hundred tokens of a photo the whole
attention matrix fits into the cache, and oneDNN's bfloat16 products over it take two thirds of the time
(benchmarks/README.md, Extraction).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["attend"]

_MAX_WEIGHTS = 1 << 23  # attention weights of one image in all heads: 16 MiB, which still fit in the cache


def attend(attention: Any, tokens: Tensor) -> Tensor:
    """Run a timm attention module without norms, gate and mask by the faster of two implementations.

    Args:
        attention: timm's `Attention` in evaluation mode.
        tokens: (B, N, C) float.

    Returns:
        (B, N, C) float, equal to `attention(tokens)` up to rounding.
    """
    count, length, width = tokens.shape
    half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    if (
        tokens.device.type != "cpu"
        or not half
        or torch.is_grad_enabled()
        or attention.num_heads * length**2 > _MAX_WEIGHTS
    ):
        return attention(tokens)  # type: ignore[no-any-return]
    parts = attention.qkv(tokens).reshape(count, length, 3, attention.num_heads, attention.head_dim)
    query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
    # Autocast would take the softmax to float32 and back; its sums are in float32 anyway.
    with torch.autocast("cpu", enabled=False):
        weights = (query * attention.scale @ key.transpose(2, 3)).softmax(dim=3)
        mixed = weights @ value
    return attention.proj(mixed.transpose(1, 2).reshape(count, length, width))  # type: ignore[no-any-return]
