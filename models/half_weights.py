"""A network whose large matrices are rounded once instead of at every use."""

from __future__ import annotations

import copy

import torch
from torch import nn

__all__ = ["with_half_linears"]


def with_half_linears(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy for inference whose linear layers hold their weights in `dtype`.

    Autocast rounds the weights of a linear layer at each call, which on a CPU is a twentieth of a vision
    transformer's time. Everything else is shared with `network`: convolutions are few in a transformer, and
    elsewhere they are folded first.

    Args:
        network: Any module; it stays as it is.
        dtype: As that of the autocast under which the copy will run.
    """
    # What deepcopy finds in its memo it takes as copied.
    memo: dict[int, object] = {id(kept): kept for kept in (*network.parameters(), *network.buffers())}
    for module in network.modules():
        if isinstance(module, nn.Linear):
            for weights in (module.weight, module.bias):
                if weights is not None:
                    memo[id(weights)] = nn.Parameter(weights.detach().to(dtype), requires_grad=False)
    return copy.deepcopy(network, memo)
