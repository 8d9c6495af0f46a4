"""A memory-saving adapted transformer block: cheap activations are recomputed in the backward pass.

Autograd stores thirteen token-sized tensors per block, six of them cheap to recompute. This block stores the
others: its input; queries, keys, values, output and projection of the attention; the tokens between its
halves. The backward pass recomputes the second layer norm and the first layers of MLP and adapters, about an
eighth more operations; recomputing whole blocks takes a third more. Both halves process the tokens in chunks,
so that on a CPU the activations between two layers stay in the cache.

The formulas are those of `models.networks.block_adapters.BlockAdapters` (Lu et al., ICLR 2024, section 3.2,
equations 5, 6).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["PARALLEL_SCALE", "lean_block"]

# The weight of the parallel adapter (Lu et al., ICLR 2024, section 3.2).
PARALLEL_SCALE = 0.2
# Tokens per chunk on a CPU: the hidden activations of an MLP with 1,536 channels then take 6 MiB.
_CPU_CHUNK = 1024

_gelu_backward = torch.ops.aten.gelu_backward
_norm_backward = torch.ops.aten.native_layer_norm_backward


def lean_block(serial: Any, parallel: Any, block: Any, tokens: Tensor) -> Tensor:
    """Run a frozen timm block with two adapters.

    Args:
        serial: The adapter after the attention, with `down` and `up`.
        parallel: The adapter parallel to the MLP.
        block: The timm block, frozen; its MLP has a GELU and no gates.
        tokens: (B, N, C) float32.

    Returns:
        (B, N, C) float32.
    """
    attended = block.attn(block.norm1(tokens))
    tokens = _apply(_AttentionHalf, attended, serial, block, tokens)
    return _apply(_MlpHalf, tokens, parallel, block)


def _apply(half: Any, inputs: Tensor, adapter: Any, block: Any, *more: Tensor) -> Tensor:
    down, up = adapter.down, adapter.up
    return half.apply(inputs, down.weight, down.bias, up.weight, up.bias, block, *more)  # type: ignore[no-any-return]


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield chunks (n, C) of (B, N, C) tensors of one shape."""
    rows = [tensor.reshape(-1, tensor.shape[-1]) for tensor in tensors]
    length = _CPU_CHUNK if tensors[0].device.type == "cpu" else max(1, len(rows[0]))
    return zip(*(torch.split(flat, length) for flat in rows), strict=True)


class _AttentionHalf(Function):
    """tokens + scale * (x + adapter(x)), x being the attention's output."""

    @staticmethod
    def forward(
        ctx: Any, attended: Tensor, down: Tensor, down_bias: Tensor, up: Tensor, up_bias: Tensor, block: Any,
        tokens: Tensor,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(attended, down, down_bias, up)
        ctx.block = block
        result = torch.empty_like(tokens)
        for chunk, residual, out in _chunks(attended, tokens, result):
            hidden = F.linear(chunk, down, down_bias).relu_()
            inner = F.linear(hidden, up, up_bias).add_(chunk).mul_(block.ls1.gamma)
            torch.add(residual, inner, out=out)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        attended, down, down_bias, up = ctx.saved_tensors
        grad = grad.contiguous()
        sums = _Sums(down, down_bias, up)
        grad_input = torch.empty_like(attended)
        for chunk, grad_chunk, out in _chunks(attended, grad, grad_input):
            scaled = grad_chunk * ctx.block.ls1.gamma
            torch.add(sums.add(chunk, scaled), scaled, out=out)
        return (grad_input, *sums.gradients(), None, grad)


class _MlpHalf(Function):
    """tokens + scale * (mlp(x) + 0.2 * adapter(x)), x being the normed tokens."""

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, down: Tensor, down_bias: Tensor, up: Tensor, up_bias: Tensor, block: Any
    ) -> Tensor:
        ctx.save_for_backward(tokens, down, down_bias, up)
        ctx.block = block
        mlp, norm = block.mlp, block.norm2
        result = torch.empty_like(tokens)
        # Functions instead of modules: hooks on modules, such as FLOP counters, expect autograd to be active.
        for chunk, out in _chunks(tokens, result):
            normed = F.layer_norm(chunk, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
            inner = F.gelu(F.linear(normed, mlp.fc1.weight, mlp.fc1.bias))
            inner = F.linear(inner, mlp.fc2.weight, mlp.fc2.bias)
            hidden = F.linear(normed, down, down_bias).relu_()
            inner.add_(F.linear(hidden, up, up_bias), alpha=PARALLEL_SCALE).mul_(block.ls2.gamma)
            torch.add(chunk, inner, out=out)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tokens, down, down_bias, up = ctx.saved_tensors
        mlp, norm, gamma = ctx.block.mlp, ctx.block.norm2, ctx.block.ls2.gamma
        shape = list(norm.normalized_shape)
        grad = grad.contiguous()
        sums = _Sums(down, down_bias, up)
        grad_input = torch.empty_like(tokens)
        for chunk, grad_chunk, out in _chunks(tokens, grad, grad_input):
            normed, mean, rstd = torch.native_layer_norm(chunk, shape, norm.weight, norm.bias, norm.eps)
            scaled = grad_chunk * gamma
            before = F.linear(normed, mlp.fc1.weight, mlp.fc1.bias)
            inner = _gelu_backward(scaled @ mlp.fc2.weight, before)
            back = sums.add(normed, scaled.mul_(PARALLEL_SCALE))
            back.addmm_(inner, mlp.fc1.weight)
            mask = [True, False, False]  # gradient of the input only
            back = _norm_backward(back, chunk, shape, mean, rstd, norm.weight, norm.bias, mask)[0]
            torch.add(back, grad_chunk, out=out)
        return (grad_input, *sums.gradients(), None)


class _Sums:
    """Gradients of an adapter's weights, summed over chunks."""

    def __init__(self, down: Tensor, down_bias: Tensor, up: Tensor) -> None:
        self._down, self._down_bias, self._up = down, down_bias, up
        self._of_down, self._of_up = torch.zeros_like(down), torch.zeros_like(up)
        self._of_down_bias, self._of_up_bias = down.new_zeros(len(down)), up.new_zeros(len(up))

    def add(self, inputs: Tensor, grad: Tensor) -> Tensor:
        """Add the gradients of a chunk (n, C), given its output gradient; return its input gradient."""
        hidden = F.linear(inputs, self._down, self._down_bias).relu_()
        self._of_up.addmm_(grad.T, hidden)
        self._of_up_bias.add_(grad.sum(dim=0))
        inner = (grad @ self._up).mul_(hidden > 0)
        self._of_down.addmm_(inner.T, inputs)
        self._of_down_bias.add_(inner.sum(dim=0))
        return inner @ self._down

    def gradients(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self._of_down, self._of_down_bias, self._of_up, self._of_up_bias
