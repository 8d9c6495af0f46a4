"""Trainable parts for a frozen convolutional network: bottleneck adapters and an up-convolution head.

SelaVPR's idea (Lu et al., ICLR 2024, sections 3.2 and 3.3) carried over from transformer blocks to
convolutional stages. Both are initialised to preserve the output of the frozen network, so that training
starts from a working model, and their initial weights are deterministic.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ConvAdapter", "UpHead", "conv_adapters", "up_head"]


class ConvAdapter(nn.Module):
    """A residual bottleneck of half the channels; untrained it returns its input."""

    def __init__(self, channels: int, *, kernel_size: int = 1) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // 2, kernel_size, padding=kernel_size // 2)
        self.up = nn.Conv2d(channels // 2, channels, 1)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]  # there is one

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return maps + self.up(F.relu(self.down(maps)))  # type: ignore[no-any-return]


class UpHead(nn.Module):
    """An up-convolution from H x W cells to (2H - 1) x (2W - 1), then a 3 x 3 residual bottleneck.

    The up-convolution starts as bilinear interpolation (Long et al., "Fully Convolutional Networks for
    Semantic Segmentation", CVPR 2015, section 3.3): every second cell is then that of the frozen network.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.raise_grid = nn.ConvTranspose2d(channels, channels, kernel_size=3, stride=2, padding=1)
        self.refine = ConvAdapter(channels, kernel_size=3)
        side = torch.tensor([0.5, 1.0, 0.5])
        with torch.no_grad():
            self.raise_grid.weight.copy_(torch.eye(channels)[:, :, None, None] * torch.outer(side, side))
            nn.init.zeros_(self.raise_grid.bias)  # type: ignore[arg-type]  # there is one

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H - 1, 2W - 1)."""
        return self.refine(self.raise_grid(maps))  # type: ignore[no-any-return]


def conv_adapters(channels: dict[int, int]) -> nn.ModuleDict:
    """Return new adapters by stage, given the channels of each; their initial weights are deterministic."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.ModuleDict({str(stage): ConvAdapter(width) for stage, width in channels.items()})


def up_head(channels: int) -> UpHead:
    """Return a new head; its initial weights are deterministic."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return UpHead(channels)
