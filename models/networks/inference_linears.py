"""Linear layers of a network that will never train again: rounded once, and laid out once for oneDNN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.runtime.onednn import lay_out, lays_out, product

__all__ = ["LaidOutLinear", "keep_for_inference"]


class LaidOutLinear(nn.Module):
    """A linear layer without gradients, in the type its weights were given in, whose result it has too."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        # Neither is a parameter: what is laid out can be neither moved nor saved.
        self._weight = lay_out(linear.weight)
        self._bias = None if linear.bias is None else linear.bias.detach()
        self._dtype = linear.weight.dtype

    def forward(self, rows: Tensor) -> Tensor:
        """Map (..., C) float to (..., N)."""
        return product(rows.to(self._dtype), self._weight, self._bias)


def keep_for_inference(network: nn.Module, dtype: torch.dtype, *, laid_out: bool) -> None:
    """Change a network's linear layers in place to what inference needs of them.

    Autocast rounds the weights of a linear layer at each call, which on a CPU is a twentieth of a vision
    transformer's time; rounded here they take half of the memory too. Everything else stays: convolutions
    are few in a transformer, and elsewhere they are folded first.

    Args:
        network: Any module, where it will run.
        dtype: What it will compute in: float32, or the type of the autocast around it.
        laid_out: Lay the weights out for oneDNN where it can be done; the network is on the CPU then and
            stays there.

    Raises:
        ValueError: this was done to the network before.
    """
    laid_out = laid_out and lays_out(dtype)
    # Without the linear layers themselves: each one's weights go as soon as they are laid out.
    for parent in [module for module in network.modules() if not isinstance(module, nn.Linear)]:
        for name, child in list(parent.named_children()):
            if isinstance(child, LaidOutLinear) or (
                isinstance(child, nn.Linear) and child.weight.dtype != torch.float32
            ):
                raise ValueError("an extractor has this network already: load another one for a second")
            if isinstance(child, nn.Linear):
                for kind, weights in list(child.named_parameters()):
                    rounded = weights.detach().to(dtype)
                    setattr(child, kind, nn.Parameter(rounded, requires_grad=False))
                if laid_out:
                    setattr(parent, name, LaidOutLinear(child))
