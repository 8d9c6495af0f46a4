"""Compiled networks: padded batch sizes, equal outputs, and the error without a compiler."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.networks.architecture import Architecture
from models.networks.efficientnet import EfficientNetLite0
from models.networks.selavpr import SelaVPR
from models.runtime.compiled import CannotCompile, compiled


class Rows(nn.Module):
    """Two outputs a row, which say how large the batch was."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.sizes.append(len(images))
        return images.mean(dim=(1, 2, 3)), 2 * images


def eager(network: nn.Module, **options: Any) -> nn.Module:
    assert options == {"dynamic": False}
    return network


@pytest.mark.parametrize(("count", "size"), [(1, 8), (8, 8), (9, 16), (17, 24), (24, 24)])
def test_compiled_pads_to_few_sizes_and_drops_the_padding(
    monkeypatch: pytest.MonkeyPatch, count: int, size: int
) -> None:
    monkeypatch.setattr(torch, "compile", eager)
    network = Rows()
    images = torch.randn(count, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    means, doubled = compiled(network, max_batch=24)(images)
    assert network.sizes == [1, size]  # the first time uncompiled: networks prepare themselves then
    assert torch.allclose(means, images.mean(dim=(1, 2, 3)))
    assert torch.equal(doubled, 2 * images)


def test_compiled_without_a_compiler_names_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def failing(error: Exception) -> Callable[..., Any]:
        def run(_: Tensor) -> Tensor:
            raise error

        return lambda *_, **__: run

    monkeypatch.setattr(torch, "compile", failing(TorchDynamoException("no gcc")))
    with pytest.raises(CannotCompile, match="install a C compiler and triton, or leave compiling off"):
        compiled(Rows(), max_batch=8)(torch.zeros(1, 3, 4, 4))
    monkeypatch.setattr(torch, "compile", failing(ValueError("of the network itself")))
    with pytest.raises(ValueError, match="of the network itself"):
        compiled(Rows(), max_batch=8)(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("name", ["transformer", "efficientnet-lite0"])
def test_compiled_network_is_one_graph_with_the_same_outputs(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Without generating code: `eager` runs what was traced."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    torch.manual_seed(0)
    network: nn.Module = EfficientNetLite0()
    if name == "transformer":
        network = SelaVPR(Architecture(width=64, depth=2, num_heads=2, mlp_width=128), local_head=True)
    network.eval()
    images = torch.randn(3, 3, 224, 224)
    with torch.inference_mode():
        expected, actual = network(images), compiled(network, max_batch=16)(images)
    for one, other in zip(expected, actual, strict=True):
        assert one.std() > 1e-3
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5)
