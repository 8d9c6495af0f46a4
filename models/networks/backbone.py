"""DINOv2 vision transformers with SelaVPR's adapters: normalised images to grids of patch tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from models.networks.architecture import Architecture
from models.networks.attention_features import attention_features
from models.networks.block_adapters import untrained_adapters
from models.networks.dinov2 import DinoV2
from models.networks.lean_block import lean_block
from models.networks.local_layer import LocalLayer

__all__ = ["AdaptedViT"]


class AdaptedViT(DinoV2):
    """A frozen DINOv2 vision transformer with trainable adapters in each block.

    Attributes:
        activation_checkpointing: Recompute blocks in the backward pass instead of storing their activations.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.adapters = untrained_adapters(architecture)
        self.activation_checkpointing = False

    def forward(self, images: Tensor) -> Tensor:
        """Return the patch tokens after the last norm.

        Args:
            images: (B, 3, h, w) float, normalised, h and w multiples of 14.

        Returns:
            (B, h / 14, w / 14, C) float.

        Raises:
            ValueError: a side of the input is not a multiple of 14.
        """
        return self.tokens_and_layer(images, None)[0]

    def tokens_and_layer(self, images: Tensor, local: LocalLayer | None) -> tuple[Tensor, Tensor | None]:
        """Return the patch tokens after the last norm, and the local features of a layer if one is given.

        Args:
            images: As of `forward`.
            local: The layer.

        Returns:
            tokens: (B, h / 14, w / 14, C) float.
            features: (B, h / 14, w / 14, C) float32, unit L2 norm per cell or zeros.
        """
        tokens, (height, width) = self.embed(images)
        features = None
        lean = self._uses_lean_blocks(tokens)
        for number, (adapters, block) in enumerate(zip(self.adapters, self.vit.blocks, strict=True)):
            if local is not None and number == local.layer:
                features = attention_features(block, tokens, local, prefix=self.prefix)
                features = features.reshape(images.shape[0], height, width, -1)
            # Autograd tracks nothing before the first adapter: neither inputs nor weights require gradients.
            if self.activation_checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(adapters, block, tokens, use_reentrant=False, preserve_rng_state=False)
            elif lean:
                tokens = lean_block(adapters.serial, adapters.parallel, block, tokens)
            else:
                tokens = adapters(block, tokens)
        tokens = self.vit.norm(tokens)[:, self.prefix :]
        return tokens.reshape(images.shape[0], height, width, -1), features

    def _uses_lean_blocks(self, tokens: Tensor) -> bool:
        """Return whether `lean_block` applies: float32 training of adapters only, the MLP without gates."""
        return (
            torch.is_grad_enabled()
            and tokens.dtype == torch.float32
            and not torch.is_autocast_enabled(tokens.device.type)
            and not self.architecture.gated_mlp
            and not any(weights.requires_grad for weights in self.vit.parameters())
        )
