"""Batch normalisation folded into the preceding convolutions, for inference.

In evaluation mode it is a fixed scale and shift per channel, which the weights and bias of the convolution
can absorb (Jacob et al., CVPR 2018, section 3.2). The outputs change only by rounding.
"""

from __future__ import annotations

import copy
from typing import Any

from timm.models import EfficientNet
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

__all__ = ["PAIRS", "fold_batch_norm"]

# Convolutions and their batch normalisations, which folding replaces by their activations, by type of module.
PAIRS: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    EfficientNet: (("conv_stem", "bn1"), ("conv_head", "bn2")),
    DepthwiseSeparableConv: (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    InvertedResidual: (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
}


def fold_batch_norm(network: nn.Module) -> Any:
    """Return a copy of timm's EfficientNet, in evaluation mode, with batch normalisation folded.

    Activations are unchanged. The copy is for inference only: it has no batch statistics.
    """
    folded = copy.deepcopy(network).eval()
    for module in list(folded.modules()):
        for conv_name, norm_name in PAIRS.get(type(module), ()):
            conv, norm = getattr(module, conv_name), getattr(module, norm_name)
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            setattr(module, norm_name, norm.act)
    unfolded = [name for name, module in folded.named_modules() if isinstance(module, nn.BatchNorm2d)]
    if unfolded:
        raise TypeError(
            f"no convolution is known before {', '.join(unfolded)}: add its kind of block to the pairs"
        )
    return folded
