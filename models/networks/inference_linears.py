"""Linear layers prepared for inference: weights rounded once, and laid out once for oneDNN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.runtime.onednn import lay_out, lays_out, product

__all__ = ["LaidOutLinear", "keep_for_inference", "lays_out_linears"]


def lays_out_linears(dtype: torch.dtype) -> bool:
    """Return whether linear layers of a dtype are laid out for oneDNN on this CPU.

    In float32 with AVX2 alone BLAS multiplies the thousands of tokens of a batch a tenth to a fifth faster
    (benchmarks/README.md, Extraction).
    """
    slower = dtype == torch.float32 and torch.backends.cpu.get_cpu_capability() == "AVX2"
    return not slower and lays_out(dtype)


class LaidOutLinear(nn.Module):
    """A linear layer without gradients that computes and returns the dtype of its weights."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        # Neither is a parameter: a laid-out matrix can be neither moved nor saved.
        self._weight = lay_out(linear.weight)
        self._bias = None if linear.bias is None else linear.bias.detach()
        self._dtype = linear.weight.dtype

    def forward(self, rows: Tensor) -> Tensor:
        """Map (..., C) float to (..., N)."""
        return product(rows.to(self._dtype), self._weight, self._bias)


def keep_for_inference(network: nn.Module, dtype: torch.dtype, *, laid_out: bool) -> None:
    """Prepare a network's linear layers for inference, in place.

    Autocast rounds the weights of a linear layer at each call, which on a CPU takes a twentieth of a vision
    transformer's time; rounded once they also take half the memory. Convolutions are left alone, see
    `models.networks.inference_convolutions`.

    Args:
        network: Any module, on the device where it will run.
        dtype: The dtype of its arithmetic: float32, or that of autocast.
        laid_out: Lay the weights out for oneDNN where `lays_out_linears`; requires that the network stays on
            the CPU.

    Raises:
        ValueError: the network is already prepared.
    """
    laid_out = laid_out and lays_out_linears(dtype)
    # Only parents are listed, so that each layer's original weights are freed once they are laid out.
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
