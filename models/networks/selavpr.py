"""SelaVPR: an adapted DINOv2 backbone, a global descriptor head and a local-feature head.

Lu et al., "Towards Seamless Adaptation of Pre-trained Models for Visual Place Recognition", ICLR 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.architecture import Architecture
from models.networks.backbone import AdaptedViT
from models.networks.descriptions import LOCAL_CHANNELS, SelaVPRDescription
from models.networks.local_layer import LocalLayer
from storage.card import Preprocessing

__all__ = ["LocalHead", "SelaVPR", "generalized_mean"]

_GEM_EPS = 1e-6


def generalized_mean(cells: Tensor, p: Tensor | float) -> Tensor:
    """Pool cells by the generalized mean, GeM (Radenovic et al., TPAMI 2019, equation 3).

    Args:
        cells: (B, N, C) float.
        p: The exponent; 1 is the mean, infinity the maximum.

    Returns:
        (B, C) float, positive.
    """
    return cells.clamp(min=_GEM_EPS).pow(p).mean(dim=1).pow(1 / p)


class LocalHead(nn.Module):
    """Two up-convolutions from H x W tokens to (4H - 3) x (4W - 3) local features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.ConvTranspose2d(width, 256, kernel_size=3, stride=2, padding=1)
        self.second = nn.ConvTranspose2d(256, LOCAL_CHANNELS, kernel_size=3, stride=2, padding=1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, H, W, C) to features (B, 4H - 3, 4W - 3, 128), not yet normalised."""
        raised = self.second(F.relu(self.first(tokens.permute(0, 3, 1, 2))))
        return raised.permute(0, 2, 3, 1)  # type: ignore[no-any-return]


class SelaVPR(nn.Module):
    """The full SelaVPR model.

    Only the adapters, the pooling exponent and the local head are trainable. Without a local head the local
    features are those of `local_layer`, or the patch tokens.

    Attributes:
        backbone: Adapted vision transformer.
        gem_p: (1,) float, the learnt exponent of the generalized mean.
        local_head: The up-convolutions, or None.
        min_similarity: Lowest similarity of mutual neighbours that are counted; None: all are. Saved with the
            weights.
        local_layer: The layer that gives local features where there is no local head; None: the last tokens.
    """

    def __init__(self, architecture: Architecture, *, local_head: bool) -> None:
        super().__init__()
        self.backbone = AdaptedViT(architecture)
        self.gem_p = nn.Parameter(torch.full((1,), 3.0))
        self.local_head = LocalHead(architecture.width) if local_head else None
        self.min_similarity: float | None = self.description.min_similarity
        self.local_layer: LocalLayer | None = None

    @property
    def description(self) -> SelaVPRDescription:
        """The model's description, see `models.networks.descriptions`."""
        return SelaVPRDescription(self.backbone.architecture, local_head=self.local_head is not None)

    @property
    def name(self) -> str:
        """Architecture name for the card, such as `selavpr-vitl14-reg4`."""
        return self.description.name

    @property
    def activation_checkpointing(self) -> bool:
        """Whether blocks are recomputed in the backward pass instead of storing their activations."""
        return self.backbone.activation_checkpointing

    @activation_checkpointing.setter
    def activation_checkpointing(self, on: bool) -> None:
        self.backbone.activation_checkpointing = on

    @property
    def descriptor_dim(self) -> int:
        """D, the width of the descriptor."""
        return self.description.descriptor_dim

    @property
    def feature_dim(self) -> int:
        """C, the channels of one local feature."""
        return self.description.feature_dim

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of local features for an input size in pixels.

        Raises:
            ValueError: a side is not a multiple of 14.
        """
        return self.description.grid(height, width)

    def default_preprocessing(self) -> Preprocessing:
        """Return the published evaluation's preprocessing: ImageNet statistics, no antialiasing."""
        return self.description.default_preprocessing()

    def add_local_head(self) -> None:
        """Add an untrained local head, unless present; its initial weights are deterministic."""
        if self.local_head is None:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                self.local_head = LocalHead(self.descriptor_dim).to(self.gem_p.device)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return descriptors and local features.

        Args:
            images: (B, 3, h, w) float, normalised, h and w multiples of 14.

        Returns:
            descriptors: (B, D) float32, unit L2 norm.
            features: (B, H, W, C) float32, unit L2 norm per cell.

        Raises:
            ValueError: a side of the input is not a multiple of 14.
        """
        local = self.local_layer if self.local_head is None else None
        tokens, features = self.backbone.tokens_and_layer(images, local)
        return self.descriptors(tokens), self.features(tokens) if features is None else features

    def describe(self, images: Tensor) -> Tensor:
        """Return the descriptors of `forward` without computing local features, for mining."""
        return self.descriptors(self.backbone(images))

    def descriptors(self, tokens: Tensor) -> Tensor:
        """Pool patch tokens (B, H, W, C) to descriptors (B, C) float32 of unit L2 norm (section 3.1)."""
        cells = F.normalize(tokens.float(), dim=-1).flatten(1, 2)
        return F.normalize(generalized_mean(cells, self.gem_p), dim=-1)

    def features(self, tokens: Tensor) -> Tensor:
        """Turn patch tokens (B, H, W, C) into float32 local features, unit L2 norm per cell (section 3.3)."""
        cells = tokens if self.local_head is None else self.local_head(tokens)
        return F.normalize(cells.float(), dim=-1)
