"""The shape of a DINOv2 vision transformer, and the grid of its patch tokens. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PATCH_PX", "Architecture", "token_grid"]

PATCH_PX = 14


@dataclass(frozen=True)
class Architecture:
    """Shape of a DINOv2 vision transformer.

    Attributes:
        width: C, channels of a token.
        depth: Number of blocks.
        num_heads: Attention heads of a block.
        mlp_width: Rows of the first MLP layer; for a gated MLP both halves together.
        registers: Number of register tokens.
        gated_mlp: SwiGLU instead of GELU, as in ViT-g.
        position_grid: Side of the stored square grid of position embeddings.
    """

    width: int
    depth: int
    num_heads: int
    mlp_width: int
    registers: int = 0
    gated_mlp: bool = False
    position_grid: int = 37

    @classmethod
    def of_size(cls, size: str, *, registers: int = 0) -> Architecture:
        """Return the shape of a published size: `s`, `b`, `l` or `g`."""
        width, depth, num_heads, mlp_width = {
            "s": (384, 12, 6, 1536),
            "b": (768, 12, 12, 3072),
            "l": (1024, 24, 16, 4096),
            "g": (1536, 40, 24, 8192),
        }[size]
        return cls(width, depth, num_heads, mlp_width, registers=registers, gated_mlp=size == "g")


def token_grid(height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns of patch tokens of an input.

    Args:
        height: Input height in pixels.
        width: Input width in pixels.

    Raises:
        ValueError: a side is not a positive multiple of the patch size.
    """
    for name, side in (("height", height), ("width", width)):
        if side <= 0 or side % PATCH_PX:
            below = max(PATCH_PX, side // PATCH_PX * PATCH_PX)
            above = max(PATCH_PX, below + PATCH_PX if side > 0 else PATCH_PX)
            choice = f"{below} or {above}" if below != above else f"{below} or more"
            raise ValueError(f"input {name} {side} is not a multiple of {PATCH_PX}: use {choice}")
    return height // PATCH_PX, width // PATCH_PX
