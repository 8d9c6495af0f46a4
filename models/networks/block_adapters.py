"""SelaVPR's adapters of a transformer block: one after the attention, one parallel to the MLP.

Lu et al., "Towards Seamless Adaptation of Pre-trained Models for Visual Place Recognition", ICLR 2024,
section 3.2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.architecture import Architecture
from models.networks.attention import attend
from models.networks.lean_block import PARALLEL_SCALE

__all__ = ["Adapter", "BlockAdapters", "untrained_adapters"]


class Adapter(nn.Module):
    """A bottleneck of half the width; untrained it returns zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, width // 2)
        self.up = nn.Linear(width // 2, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return self.up(F.relu(self.down(tokens)))  # type: ignore[no-any-return]


class BlockAdapters(nn.Module):
    """The two adapters of one transformer block: after the attention and parallel to the MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.serial = Adapter(width)
        self.parallel = Adapter(width)

    def forward(self, block: Any, tokens: Tensor) -> Tensor:
        """Run a timm block with these adapters (section 3.2, equations 5 and 6).

        Args:
            block: The frozen timm block.
            tokens: (B, N, C) float.

        Returns:
            (B, N, C) float.
        """
        attended = attend(block.attn, block.norm1(tokens))
        tokens = tokens + block.ls1(attended + self.serial(attended))
        normed = block.norm2(tokens)
        return tokens + block.ls2(block.mlp(normed) + PARALLEL_SCALE * self.parallel(normed))  # type: ignore[no-any-return]


def untrained_adapters(architecture: Architecture) -> nn.ModuleList:
    """Return new adapters, which do not change the output; their initial weights are deterministic.

    Untrained models need equal weights in every process: otherwise their descriptors were not comparable.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.ModuleList(BlockAdapters(architecture.width) for _ in range(architecture.depth))
