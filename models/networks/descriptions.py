"""Descriptions of networks: name, output sizes and preprocessing, without building them. Imports no torch.

Cards are made from descriptions; the networks delegate to theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.names import DEFAULT_MODEL
from models.networks.architecture import Architecture, token_grid
from models.networks.local_layer import LocalLayer, late_layer
from storage.card import Preprocessing

__all__ = [
    "ADAPTED_MODEL",
    "LOCAL_CHANNELS",
    "LOCAL_STAGE",
    "STAGE_CHANNELS",
    "EfficientNetDescription",
    "SelaVPRDescription",
]

ADAPTED_MODEL = f"{DEFAULT_MODEL}-adapted"

# Output channels of the stages of EfficientNet-Lite0. Local features come from the last stage with stride 16.
STAGE_CHANNELS = (16, 24, 40, 80, 112, 192, 320)
LOCAL_STAGE = 4
_LOCAL_STRIDE, _TOTAL_STRIDE = 16, 32

LOCAL_CHANNELS = 128  # of SelaVPR's local head
_SIZES = {(384, 12): "vits14", (768, 12): "vitb14", (1024, 24): "vitl14", (1536, 40): "vitg14"}


@dataclass(frozen=True)
class SelaVPRDescription:
    """A SelaVPR model.

    Attributes:
        architecture: Shape of its vision transformer.
        local_head: Whether it has the up-convolutions; without them patch tokens are the local features.
    """

    architecture: Architecture
    local_head: bool

    @property
    def name(self) -> str:
        """Architecture name for the card, such as `selavpr-vitl14-reg4`."""
        shape = self.architecture
        size = _SIZES.get((shape.width, shape.depth), f"vit{shape.width}x{shape.depth}")
        return f"selavpr-{size}" + (f"-reg{shape.registers}" if shape.registers else "")

    @property
    def descriptor_dim(self) -> int:
        """D, the width of the descriptor."""
        return self.architecture.width

    @property
    def feature_dim(self) -> int:
        """C, the channels of one local feature."""
        return LOCAL_CHANNELS if self.local_head else self.architecture.width

    @property
    def local_layer(self) -> LocalLayer | None:
        """The layer that gives local features where no head was trained for them."""
        return None if self.local_head else late_layer(self.architecture.depth)

    @property
    def min_similarity(self) -> float | None:
        """The default lowest similarity of mutual neighbours that are counted; None: all are."""
        return None  # the published features are trained to count every mutual neighbour

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of local features for an input size in pixels.

        Raises:
            ValueError: a side is not a multiple of 14.
        """
        rows, columns = token_grid(height, width)
        return (4 * rows - 3, 4 * columns - 3) if self.local_head else (rows, columns)

    def default_preprocessing(self) -> Preprocessing:
        """Return the published evaluation's preprocessing: ImageNet statistics, no antialiasing."""
        return Preprocessing("tensor_bilinear", 224, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class EfficientNetDescription:
    """An EfficientNet-Lite0, plain or adapted.

    Attributes:
        adapter_stages: Stages followed by an adapter, in order.
        local_head: Whether it has the up-convolution head.

    Raises:
        ValueError: a stage does not exist.
    """

    adapter_stages: tuple[int, ...] = ()
    local_head: bool = False

    def __post_init__(self) -> None:
        if not set(self.adapter_stages) <= set(range(len(STAGE_CHANNELS))):
            raise ValueError(
                f"unknown stages in {list(self.adapter_stages)}: pass some of 0 to {len(STAGE_CHANNELS) - 1}"
            )

    @property
    def name(self) -> str:
        """Architecture name for the card."""
        return ADAPTED_MODEL if self.adapter_stages or self.local_head else DEFAULT_MODEL

    @property
    def descriptor_dim(self) -> int:
        """D, the width of the descriptor."""
        return 1280

    @property
    def feature_dim(self) -> int:
        """C, the channels of one local feature."""
        return STAGE_CHANNELS[LOCAL_STAGE]

    @property
    def min_similarity(self) -> float | None:
        """The default lowest similarity of mutual neighbours that are counted; None: all are.

        With 196 coarse features a plain count is noisy; counting only similar cells separates places. The
        training loss of a local head has no such threshold.
        """
        return None if self.local_head else 0.6

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of local features for an input size in pixels.

        Raises:
            ValueError: a side is not a positive multiple of 32.
        """
        for name, side in (("height", height), ("width", width)):
            if side <= 0 or side % _TOTAL_STRIDE:
                below = max(_TOTAL_STRIDE, side // _TOTAL_STRIDE * _TOTAL_STRIDE)
                raise ValueError(
                    f"input {name} {side} is not a multiple of {_TOTAL_STRIDE}: "
                    f"use {below} or {below + _TOTAL_STRIDE}"
                )
        rows, columns = height // _LOCAL_STRIDE, width // _LOCAL_STRIDE
        return (2 * rows - 1, 2 * columns - 1) if self.local_head else (rows, columns)

    def default_preprocessing(self) -> Preprocessing:
        """Return the preprocessing of the ImageNet weights: 224 x 224, antialiased, scaled to -1..1."""
        return Preprocessing("pil_bilinear", 224, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
