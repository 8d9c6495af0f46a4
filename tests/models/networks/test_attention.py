"""Attention in half precision equals timm's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from timm.layers import Attention
from torch import Tensor

from models.networks import attention as attention_module
from models.networks.attention import attend


@contextmanager
def operators_used() -> Iterator[list[str]]:
    """Collect the names of the operators that run inside."""
    kernels: list[str] = []
    with torch.profiler.profile() as profile:
        yield kernels
    kernels += [event.key for event in profile.key_averages()]


def module() -> Attention:
    torch.manual_seed(0)
    return Attention(64, num_heads=4, qkv_bias=True).eval()


def tokens(count: int = 2, length: int = 37) -> Tensor:
    return torch.randn(count, length, 64, generator=torch.Generator().manual_seed(1))


def test_attend_in_bfloat16_equals_the_module_by_plain_products() -> None:
    layer, inputs = module(), tokens()
    exact = layer(inputs).detach()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16), operators_used() as used:
        attended = attend(layer, inputs)
    assert attended.shape == inputs.shape
    assert attended.dtype == torch.bfloat16
    torch.testing.assert_close(attended.float(), exact, atol=0.01, rtol=0.02)
    assert "aten::_softmax" in used
    assert not any("scaled_dot_product" in name for name in used)


@pytest.mark.parametrize("why", ["float32", "gradients", "too many tokens"])
def test_attend_otherwise_runs_the_module(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, inputs = module(), tokens()
    if why == "too many tokens":
        monkeypatch.setattr(attention_module, "_MAX_WEIGHTS", 4 * 37**2 - 1)
    half = why != "float32"
    with (
        torch.set_grad_enabled(why == "gradients"),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=half),
    ):
        expected = layer(inputs)
        with operators_used() as used:
            attended = attend(layer, inputs)
    assert torch.equal(attended, expected)
    assert any("scaled_dot_product" in name for name in used)
    assert attended.requires_grad == (why == "gradients")
