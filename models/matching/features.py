"""Local features as matching reads them: their accepted shapes and dtypes, and conversion to float32."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Features", "NotFinite", "as_float32", "candidate_cells", "float32_like", "query_cells"]

Features = Tensor | NDArray[np.floating]


class NotFinite(ValueError):
    """Features hold NaN or infinite values."""

    def __init__(self) -> None:
        super().__init__("features hold NaN or infinite values: extract them again, or run `placeray verify`")


def query_cells(features: Features, *, name: str = "query") -> Tensor:
    """Return the features of one image as (N, C) cells; arrays become float32 tensors.

    Raises:
        ValueError: a wrong shape or dtype, or no cells; the message calls them `name`.
    """
    if features.ndim not in (2, 3):
        raise ValueError(f"{name} has shape {tuple(features.shape)}: pass (N, C) or (H, W, C)")
    cells = features.reshape(-1, features.shape[-1])
    _require_float_cells(cells, name)
    return cells if isinstance(cells, Tensor) else as_float32(cells)


def candidate_cells(features: Features) -> Features:
    """Return the features of K images as (K, N, C) cells, unconverted.

    Raises:
        ValueError: a wrong shape or dtype, or no cells.
    """
    if features.ndim not in (3, 4):
        raise ValueError(f"candidates have shape {tuple(features.shape)}: pass (K, N, C) or (K, H, W, C)")
    count = int(np.prod(features.shape[1:-1]))
    cells = features.reshape(features.shape[0], count, features.shape[-1])
    _require_float_cells(cells, "candidates")
    return cells


def _require_float_cells(cells: Features, name: str) -> None:
    floating = cells.is_floating_point() if isinstance(cells, Tensor) else cells.dtype.kind == "f"
    if not floating:
        raise ValueError(f"{name} have dtype {cells.dtype}: convert them to float32 or float16 first")
    if 0 in cells.shape[-2:]:
        raise ValueError(f"{name} hold no cells (shape {tuple(cells.shape)}): pass at least one")


def as_float32(features: Tensor | NDArray[np.floating]) -> Tensor:
    """Return features of any shape and float dtype as a float32 tensor on the CPU; arrays are copied."""
    if isinstance(features, Tensor):
        return features.detach().to(device="cpu", dtype=torch.float32)
    # A copy, since the array may be read-only. NumPy takes twenty times as long as torch to widen halves.
    dtype = np.float16 if features.dtype == np.float16 else np.float32
    return torch.from_numpy(np.array(features, dtype=dtype)).to(torch.float32)


def float32_like(features: Features, like: Tensor) -> Tensor:
    """Move features to the device of `like` as float32; NumPy arrays are copied, they may be read-only."""
    if isinstance(features, Tensor):
        return features.to(device=like.device, dtype=torch.float32)
    return as_float32(features).to(like.device)
