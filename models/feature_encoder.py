"""Encoding of local features on the device that computed them: only encoded bytes are transferred.

The counterpart of `storage.features.encodings`, which defines the byte layouts and decodes them without
torch: the two must be changed together.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from storage.errors import InvalidBatch
from storage.features.encodings import FeatureCodec

__all__ = ["FeatureEncoder"]

# Optimal step of a uniform quantiser with 2**bits levels for a normal distribution of unit variance (Max,
# "Quantizing for minimum distortion", 1960, table II).
_BEST_STEP = {2: 0.9957, 4: 0.3352}


class FeatureEncoder:
    """Encodes local features in the format of a store, with torch."""

    def __init__(self, codec: FeatureCodec, *, device: torch.device | str = "cpu") -> None:
        """Encode on `device` in the format that `codec` decodes."""
        self._kind = codec.encoding.partition("-")[0]
        self._device = device
        self._row_bytes = codec.row_bytes
        self._shape = (*codec.grid, codec.feature_dim)
        self._projection = None if codec.projection is None else torch.tensor(codec.projection, device=device)
        self._whitening = None if codec.whitening is None else torch.tensor(codec.whitening, device=device)

    @torch.inference_mode()
    def __call__(self, features: Tensor) -> Tensor:
        """Encode the features of images.

        Args:
            features: (B, H, W, C) float32, finite, contiguous, at least one image.

        Returns:
            (B, row_bytes) uint8 on the same device.
        """
        if self._kind == "none":
            return features.new_empty((len(features), 0), dtype=torch.uint8)
        if self._whitening is not None:
            features = torch.nn.functional.normalize(features @ self._whitening, dim=-1)
        if self._projection is not None:
            features = features @ self._projection
        if self._kind == "binary":
            return _signs(features).flatten(1)
        values = features.flatten(1)
        if self._kind == "float16":
            return values.half().view(torch.uint8)
        if self._kind == "int8":
            step = values.abs().amax(dim=1, keepdim=True) / 127
            packed = (values / torch.where(step > 0, step, 1)).round().to(torch.int8).view(torch.uint8)
        else:
            step, packed = _packed_levels(values, bits=int(self._kind[3:]))
        return torch.cat([step.view(torch.uint8), packed], dim=1)

    def encode(self, features: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Encode features given as a NumPy array.

        Args:
            features: (B, H, W, C) float16 or float32.

        Returns:
            (B, row_bytes) uint8.

        Raises:
            InvalidBatch: the shape is not that of the card, or a value is not finite.
        """
        shape = (len(features), *self._shape)
        if features.shape != shape or features.dtype.kind != "f":
            raise InvalidBatch(
                f"features of shape {features.shape} and type {features.dtype} do not fit {shape} of the "
                "store: extract them with the store's model"
            )
        if not len(features):
            return np.empty((0, self._row_bytes), np.uint8)
        tensor = torch.from_numpy(np.ascontiguousarray(features)).to(self._device).float()
        if not bool(torch.isfinite(tensor).all()):
            raise InvalidBatch("local features hold NaN or infinity: check the model that made them")
        return np.asarray(self(tensor).cpu())


def _signs(features: Tensor) -> Tensor:
    """Return (..., ceil(C / 8)) uint8, the first value in a byte's highest bit."""
    bits = torch.nn.functional.pad(features > 0, (0, -features.shape[-1] % 8)).to(torch.uint8)
    weights = 1 << torch.arange(7, -1, -1, dtype=torch.uint8, device=features.device)
    return (bits.reshape(*bits.shape[:-1], bits.shape[-1] // 8, 8) * weights).sum(dim=-1, dtype=torch.uint8)


def _packed_levels(values: Tensor, *, bits: int) -> tuple[Tensor, Tensor]:
    """Return (B, 1) float32 steps and the packed levels of (B, N) float32, a byte's lowest bits first."""
    half, count = 1 << (bits - 1), 8 // bits
    squares = values.square().sum(dim=1, keepdim=True)
    rms = (squares / values.shape[1]).sqrt()
    wide = _BEST_STEP[bits] * torch.where(rms > 0, rms, 1)
    levels = (values / wide + half).clamp_(0, 2 * half - 1).floor_()
    # All-zero features have step 0 and decode to zeros.
    step = squares / (values * (levels + (0.5 - half))).sum(dim=1, keepdim=True)
    step = torch.where(rms > 0, step, 0)
    padded = torch.nn.functional.pad(levels, (0, -values.shape[1] % count), value=half).to(torch.uint8)
    if bits == 4:
        pairs = padded.view(torch.int16)
        return step, ((pairs | (pairs >> 4)) & 0xFF).to(torch.uint8)
    fours = padded.view(torch.int32)
    fours = fours | (fours >> 6)
    return step, ((fours | (fours >> 12)) & 0xFF).to(torch.uint8)
