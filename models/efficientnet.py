"""The embedded default: frozen ImageNet EfficientNet-Lite0 features, nothing to download or train.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; Lite0
leaves out squeeze-and-excitation and swish.
"""

from __future__ import annotations

from typing import Any

import timm
from torch import Tensor, nn
from torch.nn import functional as F

from models.selavpr import generalized_mean
from storage.card import Preprocessing

__all__ = ["EfficientNetLite0"]

_LOCAL_STRIDE = 16
# The last of the blocks whose output has a sixteenth of the input's side.
_LOCAL_STAGE = 4


class EfficientNetLite0(nn.Module):
    """Global and local features of timm's `tf_efficientnet_lite0` without its classifier."""

    name = "efficientnet-lite0"
    descriptor_dim = 1280
    feature_dim = 112
    # With 196 coarse features a plain count is noisy: similar cells alone tell places apart.
    min_similarity: float | None = 0.6

    backbone: Any

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)
        self.requires_grad_(False)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of local features for an input size.

        Raises:
            ValueError: a side is no positive multiple of 32.
        """
        for name, side in (("height", height), ("width", width)):
            if side <= 0 or side % 32:
                below = max(32, side // 32 * 32)
                raise ValueError(f"input {name} {side} is not a multiple of 32: use {below} or {below + 32}")
        return height // _LOCAL_STRIDE, width // _LOCAL_STRIDE

    def default_preprocessing(self) -> Preprocessing:
        """Return 224 x 224, antialiased, scaled to -1..1."""
        return Preprocessing("pil_bilinear", 224, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return descriptors and local features.

        Args:
            images: (B, 3, h, w) float, normalised.

        Returns:
            descriptors: (B, 1280) float32, unit L2 norm.
            features: (B, h / 16, w / 16, 112) float32, unit L2 norm per cell.
        """
        net = self.backbone
        maps = net.bn1(net.conv_stem(images))
        for stage in net.blocks[: _LOCAL_STAGE + 1]:
            maps = stage(maps)
        features = F.normalize(maps.permute(0, 2, 3, 1).float(), dim=-1)
        for stage in net.blocks[_LOCAL_STAGE + 1 :]:
            maps = stage(maps)
        maps = net.bn2(net.conv_head(maps)).float()
        descriptors = F.normalize(generalized_mean(maps.flatten(2).transpose(1, 2), 3.0), dim=-1)
        return descriptors, features.contiguous()
