"""SelaVPR++ described without building it: name, output sizes and preprocessing. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from models.networks.architecture import Architecture, token_grid
from storage.card import Preprocessing

__all__ = ["SelaVPRppDescription"]

_SIZES = {(768, 12, 12): "vitb14", (1024, 24, 16): "vitl14"}


@dataclass(frozen=True)
class SelaVPRppDescription:
    """A SelaVPR++ model.

    Attributes:
        architecture: Shape of its vision transformer.
        adapters: Number of adapters of a branch. The side path begins before the last so many blocks.
        float_dim: Width of the float descriptor.
        code_bits: Bits of the binary code; None: the model has no hash branch.
    """

    architecture: Architecture
    adapters: int
    float_dim: int
    code_bits: int | None

    @property
    def name(self) -> str:
        """Architecture name for the card, such as `selavprpp-vitb14`."""
        shape = self.architecture
        size = _SIZES.get((shape.width, shape.depth, self.adapters))
        return f"selavprpp-{size or f'vit{shape.width}x{shape.depth}'}"

    @property
    def descriptor_dim(self) -> int:
        """D, the width of the float descriptor."""
        return self.float_dim

    @property
    def feature_dim(self) -> int:
        """C, the channels of a cell that the float descriptor pools."""
        return self.architecture.width

    @property
    def min_similarity(self) -> float | None:
        """The default lowest similarity of mutual neighbours that are counted; None: all are."""
        return None

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of cells for an input size in pixels.

        Raises:
            ValueError: a side is not a multiple of 14.
        """
        return token_grid(height, width)

    def default_preprocessing(self) -> Preprocessing:
        """Return the published evaluation's: ImageNet statistics, 322 x 322, antialiased as a tensor."""
        return Preprocessing("tensor_antialiased", 322, 322, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
