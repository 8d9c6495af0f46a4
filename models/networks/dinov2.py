"""DINOv2 vision transformers: normalised images to embedded tokens, then through frozen blocks.

The transformer is timm's. Position embeddings are resampled by DINOv2's rule, from which timm's differs.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.layers.mlp import Mlp, SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.architecture import PATCH_PX, Architecture, token_grid
from models.networks.attention import attend

__all__ = ["DinoV2"]

# DINOv2 resamples its position embeddings by the factor (n + 0.1) / 37 instead of to size n.
_POSITION_OFFSET = 0.1


class DinoV2(nn.Module):
    """A frozen DINOv2 vision transformer.

    Attributes:
        architecture: Its shape.
        vit: timm's model, whose parameters need no gradients.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.vit = _build_vit(architecture).requires_grad_(False)

    @property
    def prefix(self) -> int:
        """Number of tokens before those of the patches: the class token and the registers."""
        return 1 + self.architecture.registers

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the tokens before the first block, and the rows and columns of patches.

        Args:
            images: (B, 3, h, w) float, normalised, h and w multiples of 14.

        Returns:
            (B, prefix + h / 14 * w / 14, C) float, and (h / 14, w / 14).

        Raises:
            ValueError: a side of the input is not a multiple of 14.
        """
        height, width = token_grid(images.shape[2], images.shape[3])
        patches = self.vit.patch_embed.proj(images).flatten(2).transpose(1, 2)
        return self._with_positions(patches, height, width), (height, width)

    @staticmethod
    def run_block(block: Any, tokens: Tensor) -> Tensor:
        """Run one of timm's blocks, with the faster attention in half precision on a CPU."""
        tokens = tokens + block.ls1(attend(block.attn, block.norm1(tokens)))
        return tokens + block.ls2(block.mlp(block.norm2(tokens)))  # type: ignore[no-any-return]

    def _with_positions(self, patches: Tensor, height: int, width: int) -> Tensor:
        """Add position embeddings to (B, N, C) patches and prepend class and register tokens."""
        prefix, grid = self.vit.cls_token, self.vit.pos_embed
        if not self.vit.no_embed_class:
            prefix, grid = prefix + grid[:, :1], grid[:, 1:]
        if self.vit.reg_token is not None:
            prefix = torch.cat((prefix, self.vit.reg_token), dim=1)
        patches = patches + self._positions(grid, height, width).to(patches.dtype)
        return torch.cat((prefix.to(patches.dtype).expand(patches.shape[0], -1, -1), patches), dim=1)

    def _positions(self, grid: Tensor, height: int, width: int) -> Tensor:
        """Resample (1, S * S, C) position embeddings to (1, height * width, C) as DINOv2 does."""
        side = self.architecture.position_grid
        if (height, width) == (side, side):
            return grid
        resampled = F.interpolate(
            grid.float().reshape(1, side, side, -1).permute(0, 3, 1, 2),
            scale_factor=((height + _POSITION_OFFSET) / side, (width + _POSITION_OFFSET) / side),
            mode="bicubic",
            antialias=False,
        )
        assert resampled.shape[2:] == (height, width)
        return resampled.flatten(2).transpose(1, 2)


def _build_vit(architecture: Architecture) -> Any:
    mlp_layer: Any = SwiGLUPacked if architecture.gated_mlp else Mlp
    # timm's models with registers have no position embedding for the class token.
    return VisionTransformer(
        img_size=architecture.position_grid * PATCH_PX,
        patch_size=PATCH_PX,
        num_classes=0,
        global_pool="",
        embed_dim=architecture.width,
        depth=architecture.depth,
        num_heads=architecture.num_heads,
        mlp_ratio=(architecture.mlp_width + 0.5) / architecture.width,
        mlp_layer=mlp_layer,
        act_layer=nn.SiLU if architecture.gated_mlp else nn.GELU,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        init_values=1e-5,
        reg_tokens=architecture.registers,
        no_embed_class=architecture.registers > 0,
    )
