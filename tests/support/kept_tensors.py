"""What autograd keeps for a backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["bytes_kept"]


def bytes_kept(network: nn.Module, run: Callable[[], object]) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, the network's own left out."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*network.parameters(), *network.buffers()]}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (at := tensor.untyped_storage().data_ptr()) not in own:
            kept[at] = tensor  # held, so that no other tensor gets its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = run()
    del outputs
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
