"""Convolutions prepared for inference: laid out once for oneDNN, with the activation that follows.

torch's convolution lays its kernel out at every call, its activation is a second pass over the output, and a
padding that differs from side to side copies the input first. For single images these take a third of the
time of an EfficientNet-Lite0 (benchmarks/README.md, Extraction).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from models.runtime.onednn import Convolution, convolve, convolves, lay_out_kernel

__all__ = ["LaidOutConvolution", "lay_out_convolutions"]


class LaidOutConvolution(nn.Module):
    """A convolution of float32 maps on the CPU without gradients, and the activation that follows it.

    Args:
        conv: The convolution, with a bias and without dilation.
        relu6: Whether its output is limited to 0 .. 6.
    """

    def __init__(self, conv: nn.Conv2d, *, relu6: bool) -> None:
        super().__init__()
        size, stride = conv.kernel_size[0], conv.stride[0]
        kernel, padding = conv.weight.detach(), int(conv.padding[0])
        self._even = isinstance(conv, Conv2dSame)
        if self._even:
            # "Same" with a stride of two pads an even side by one zero more at its end. A row and column of
            # zeros before an odd kernel makes the padding equal on both sides, without copying the input.
            if stride != 2 or size % 2 == 0:
                raise TypeError(f"no layout is known for a kernel of {size} with stride {stride}: add it")
            kernel, padding = F.pad(kernel, (1, 0, 1, 0)), (size - 1) // 2
        assert conv.bias is not None
        # None is a parameter: a laid-out kernel can be neither moved nor copied.
        self._kernel, self._bias = kernel, conv.bias.detach()
        self._how = Convolution(stride, padding, conv.groups, relu6)
        self._laid_out: tuple[tuple[int, int], Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy lays its kernel out itself."""
        return {**self.__dict__, "_laid_out": None}

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, C, h, w) float32 to (B, N, h', w'). Where it pads the ends of sides, these must be even.

        Raises:
            ValueError: a side is odd.
        """
        height, width = maps.shape[-2:]
        if self._even and (height % 2 or width % 2):
            raise ValueError(
                f"maps of {height} x {width} cells: pass images with sides that are multiples of 32"
            )
        laid_out = self._laid_out
        if laid_out is None or laid_out[0] != (height, width):
            kernel = lay_out_kernel(self._kernel, self._how, height=height, width=width)
            self._laid_out = laid_out = (height, width), kernel
        return convolve(maps, laid_out[1], self._bias, self._how)


def lay_out_convolutions(
    folded: nn.Module, pairs: Mapping[type[nn.Module], tuple[tuple[str, str], ...]]
) -> None:
    """Lay the convolutions of a network out, in place, where this torch and CPU support it.

    Args:
        folded: A network on the CPU, in float32, whose batch normalisation is folded.
        pairs: Names of convolutions and of the activations that follow them, by type of module.
    """
    if not convolves():
        return
    for module in list(folded.modules()):
        parent: Any = module
        for conv_name, activation_name in pairs.get(type(module), ()):
            conv, activation = getattr(parent, conv_name), getattr(parent, activation_name)
            fused = isinstance(activation, nn.ReLU6)
            setattr(parent, conv_name, LaidOutConvolution(conv, relu6=fused))
            if fused:
                setattr(parent, activation_name, nn.Identity())
