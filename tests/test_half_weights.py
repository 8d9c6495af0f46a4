"""Copies for inference whose linear layers are rounded once."""

from __future__ import annotations

import torch
from torch import nn

from models.half_weights import with_half_linears


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 2), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(72, 5, bias=False)
    ).eval()


def test_linear_layers_are_rounded_and_all_else_is_shared() -> None:
    original = network()
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    copied = with_half_linears(original, torch.bfloat16)
    found = copied.state_dict()
    assert found["3.weight"].dtype == torch.bfloat16
    assert torch.equal(found["3.weight"], before["3.weight"].bfloat16())
    for name in before.keys() - {"3.weight"}:
        assert found[name].data_ptr() == original.state_dict()[name].data_ptr()
    for name, tensor in original.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name])
    assert not any(weights.requires_grad for weights in copied.get_submodule("3").parameters())


def test_under_autocast_the_copy_gives_the_same_numbers() -> None:
    original, images = network(), torch.randn(4, 3, 4, 4)
    copied = with_half_linears(original, torch.bfloat16)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = copied(images), original(images)
    assert torch.equal(found, expected)
    assert found.abs().max() > 0.1
