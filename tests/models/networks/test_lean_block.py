"""The memory-saving block against the plain one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.networks import lean_block as lean
from models.networks.architecture import Architecture
from models.networks.backbone import AdaptedViT
from tests.support.saved_tensors import saved_bytes

SMALL = Architecture(width=48, depth=3, num_heads=3, mlp_width=192, registers=2)


def backbone(*, seed: int = 0, shape: Architecture = SMALL) -> AdaptedViT:
    """Random weights everywhere, adapters and scales too, so that every term of a gradient shows."""
    torch.manual_seed(seed)
    made = AdaptedViT(shape)
    for weights in made.parameters():
        weights.data.add_(0.2 * torch.randn_like(weights))
    return made.train()


def images(*, seed: int = 1) -> Tensor:
    return torch.randn(2, 3, 42, 56, generator=torch.Generator().manual_seed(seed))


def trained(model: AdaptedViT, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Tokens, and the gradient of a loss that weighs every number differently."""
    model.zero_grad()
    tokens = model(pixels)
    weighed = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(2))
    (tokens * weighed).sum().backward()
    gradients = {
        name: weights.grad.clone() for name, weights in model.named_parameters() if weights.grad is not None
    }
    if pixels.grad is not None:
        gradients["images"], pixels.grad = pixels.grad, None
    return tokens.detach(), gradients


@pytest.mark.parametrize("chunk", [1, 7, 1024])
@pytest.mark.parametrize("tracked", [False, True])
def test_lean_block_equals_the_plain_block_in_values_and_gradients(
    chunk: int, tracked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lean, "_CPU_CHUNK", chunk)
    model, pixels = backbone(), images().requires_grad_(tracked)
    tokens, gradients = trained(model, pixels)
    monkeypatch.setattr(AdaptedViT, "_uses_lean_blocks", lambda *_: False)
    expected_tokens, expected_gradients = trained(model, pixels)
    torch.testing.assert_close(tokens, expected_tokens, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    assert len(gradients) == 3 * 8 + tracked
    for name, gradient in expected_gradients.items():
        assert gradient.any(), name
        torch.testing.assert_close(
            gradients[name], gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item()
        )


def test_lean_block_stores_much_less(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels = backbone(), images().requires_grad_()
    lean_bytes = saved_bytes(model, lambda: model(pixels))
    monkeypatch.setattr(AdaptedViT, "_uses_lean_blocks", lambda *_: False)
    assert lean_bytes < 0.65 * saved_bytes(model, lambda: model(pixels))


def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how often the lean block runs."""
    lean_calls: list[int] = []
    real = lean.lean_block

    def counting(*args: object) -> Tensor:
        lean_calls.append(1)
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("models.networks.backbone.lean_block", counting)
    return lean_calls


def test_lean_block_runs_only_in_float32_training(monkeypatch: pytest.MonkeyPatch) -> None:
    lean_calls = calls(monkeypatch)
    model = backbone()
    with torch.inference_mode():
        model(images())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(images())
    model.activation_checkpointing = True
    model(images())
    model.activation_checkpointing = False
    assert not lean_calls
    model(images())
    assert len(lean_calls) == SMALL.depth


def test_lean_block_is_not_used_for_trained_backbones_and_gated_mlps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lean_calls = calls(monkeypatch)
    model = backbone()
    model.vit.blocks[1].mlp.fc1.weight.requires_grad_(True)
    _, gradients = trained(model, images())
    assert gradients["vit.blocks.1.mlp.fc1.weight"].any()
    gated = Architecture(width=48, depth=2, num_heads=3, mlp_width=256, gated_mlp=True)
    trained(backbone(shape=gated), images())
    assert not lean_calls


def test_lean_block_supports_flop_counters() -> None:
    model, pixels = backbone(), images()
    with FlopCounterMode(display=False) as counter:
        model(pixels).sum().backward()
    tokens = 2 * (3 * 4 + 3)
    # First and second layer of the MLP forwards, their gradients, the first layer again.
    assert counter.get_total_flops() > SMALL.depth * 5 * 2 * tokens * SMALL.width * SMALL.mlp_width
