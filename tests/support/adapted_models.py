"""The default model with adapters, and a small SelaVPR."""

from __future__ import annotations

import copy
import functools

import torch
from torch import Tensor, nn

from models.networks.architecture import Architecture
from models.networks.efficientnet import EfficientNetLite0
from models.networks.selavpr import SelaVPR
from models.training.trainable import trainable_parameters
from models.weights import load_network


@functools.cache
def _loaded() -> EfficientNetLite0:
    network, _ = load_network("efficientnet-lite0")
    assert isinstance(network, EfficientNetLite0)
    return network


def default_model() -> EfficientNetLite0:
    """A copy of the default model, which takes a quarter of the time of loading it."""
    return copy.deepcopy(_loaded())


def adapted(*, trained: bool = True, head: bool = True) -> EfficientNetLite0:
    """The default model with adapters and a head; `trained` moves every trained tensor off its start."""
    network = default_model()
    network.add_adapters()
    if head:
        network.add_local_head()
    if trained:
        generator = torch.Generator().manual_seed(3)
        for weights in trainable_parameters(network).values():
            weights.data += 0.02 * torch.randn(weights.shape, generator=generator)
    return network.eval()


def small_vit() -> SelaVPR:
    torch.manual_seed(0)
    network = SelaVPR(Architecture(width=32, depth=3, num_heads=2, mlp_width=64), local_head=True)
    for name, weights in network.named_parameters():
        if name.endswith(("up.weight", "gamma")):
            nn.init.normal_(weights, std=0.3)
    return network


def images(count: int = 2, height: int = 64, width: int = 96) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))
