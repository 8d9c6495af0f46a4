"""MultiConv, the adapter of SelaVPR++: a bottleneck with convolutions of three sizes over the patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MultiConv", "untrained_adapters"]

_NORM_EPS = 1e-3
# "Every convolution's weight and bias" begin training at this value (authors' training code).
_INITIAL = 1e-5


class MultiConv(nn.Module):
    """Maps the sum of the side state and a block's output to a change of the side state.

    The convolutions see the patch tokens alone. The class token is copied past them and then, as all tokens
    are, added to itself: it leaves as `up(2 relu(down(cls)))`.

    Args:
        width: D, channels of a token; a multiple of 64 in published models, of 32 here.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.down = nn.Linear(width, half)
        self.point = _NormedConv(half, half // 2, 1)
        self.three = nn.Sequential(_NormedConv(half, half // 16, 1), _NormedConv(half // 16, half // 4, 3))
        self.five = nn.Sequential(_NormedConv(half, half // 16, 1), _NormedConv(half // 16, half // 4, 5))
        self.up = nn.Linear(half, width)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map (B, 1 + N, D) tokens, the class token first, to (B, 1 + N, D).

        Args:
            tokens: (B, 1 + N, D) float.
            grid: Rows and columns of the N patches.
        """
        hidden = F.relu(self.down(tokens))
        patches = hidden[:, 1:].transpose(1, 2).reshape(len(hidden), -1, *grid)
        maps = torch.cat((self.point(patches), self.three(patches), self.five(patches)), dim=1)
        mixed = torch.cat((hidden[:, :1], maps.flatten(2).transpose(1, 2)), dim=1)
        return self.up(hidden + mixed)  # type: ignore[no-any-return]


class _NormedConv(nn.Module):
    """A convolution that keeps the size of the map, batch normalisation and ReLU."""

    def __init__(self, channels: int, out: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(out, eps=_NORM_EPS)

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(maps)))


def untrained_adapters(width: int, count: int) -> nn.ModuleList:
    """Return adapters as training begins with: they change nothing; their weights are deterministic."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        adapters = [MultiConv(width) for _ in range(count)]
    for module in nn.ModuleList(adapters).modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, _INITIAL)
            nn.init.constant_(module.bias, _INITIAL)  # type: ignore[arg-type]  # there is one
    for adapter in adapters:
        nn.init.zeros_(adapter.up.weight)
        nn.init.zeros_(adapter.up.bias)
    return nn.ModuleList(adapters)
