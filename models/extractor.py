"""A batch of images to descriptors and local features, with the card that says what made them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.faults import ModelFault
from models.preprocess import prepare
from storage.card import Card, Preprocessing

__all__ = ["Extractor", "ModelFault", "Network", "make_card"]

Prepared = NDArray[np.uint8] | NDArray[np.float32]

# Most images that go through the network at once. Larger batches are slower on a CPU, whose cache the maps
# then leave (measured: 33 ms an image in eights, 47 ms in thirty-twos).
_CPU_BATCH = 8
_ACCELERATOR_BATCH = 64


class Network(Protocol):
    """What an extractor needs to know of a network, besides that it is a module."""

    @property
    def name(self) -> str:
        """Return the architecture name for the card."""

    @property
    def descriptor_dim(self) -> int:
        """Return D."""

    @property
    def feature_dim(self) -> int:
        """Return C of one local feature."""

    @property
    def min_similarity(self) -> float | None:
        """Return the similarity from which mutual neighbours count; None: all count."""

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of local features for an input size."""

    def default_preprocessing(self) -> Preprocessing:
        """Return how pixels become input unless told otherwise."""


def make_card(network: Network, *, weights_sha256: str, preprocessing: Preprocessing | None = None) -> Card:
    """Describe what a network makes.

    Raises:
        ValueError: the network does not take the preprocessing's input size.
    """
    chosen = preprocessing or network.default_preprocessing()
    rows, columns = network.grid(chosen.height, chosen.width)
    return Card(
        model=network.name,
        weights_sha256=weights_sha256,
        preprocessing=chosen,
        descriptor_dim=network.descriptor_dim,
        grid_height=rows,
        grid_width=columns,
        feature_dim=network.feature_dim,
        min_similarity=network.min_similarity,
    )


class Extractor:
    """Runs a network over images.

    Attributes:
        card: What made the vectors.
        network: The network, in evaluation mode.
        device: Where it runs.
    """

    def __init__(
        self,
        network: nn.Module,
        card: Card,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Put the network on its device.

        Args:
            network: Maps (B, 3, h, w) normalised float images to descriptors and features.
            card: What the network makes.
            device: Default: the accelerator if there is one, else the CPU.
            dtype: Precision of the network's arithmetic; weights stay float32. Default: bfloat16 on an
                accelerator, float32 on a CPU.
        """
        self.card = card
        self.device = torch.device(device) if device is not None else _best_device()
        self._max_batch = _CPU_BATCH if self.device.type == "cpu" else _ACCELERATOR_BATCH
        self._dtype = dtype or (torch.float32 if self.device.type == "cpu" else torch.bfloat16)
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)
        pre = card.preprocessing
        self._mean = torch.tensor(pre.mean, device=self.device).mul(255).view(1, 3, 1, 1)
        self._scale = torch.tensor(pre.std, device=self.device).mul(255).view(1, 3, 1, 1)

    def extract(self, images: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute descriptors and local features.

        Args:
            images: Upright RGB images, each (H, W, 3) uint8 of any size.

        Returns:
            descriptors: (B, D) float32, unit L2 norm.
            features: (B, H, W, C) float32, unit L2 norm per cell.

        Raises:
            ValueError: an image is not (H, W, 3) uint8.
            ModelFault: the network's output cannot be compared.
        """
        pre = self.card.preprocessing
        step = self._max_batch
        batches = (images[start : start + step] for start in range(0, len(images), step))
        return self._joined([self._run([prepare(image, pre) for image in batch]) for batch in batches])

    def extract_prepared(
        self,
        batch: Sequence[Prepared] | Prepared,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute descriptors and local features of images that `models.preprocess.prepare` has resized.

        Args:
            batch: (B, h, w, 3), or a sequence of (h, w, 3), uint8 or float32 in 0..255 as `prepare` returns.

        Returns:
            As `extract`.

        Raises:
            ValueError: a shape or dtype is not what `prepare` makes with this card.
            ModelFault: the network's output cannot be compared.
        """
        pre = self.card.preprocessing
        dtype = np.uint8 if pre.resize == "pil_bilinear" else np.float32
        for image in batch:
            if image.shape != (pre.height, pre.width, 3) or image.dtype != dtype:
                raise ValueError(
                    f"prepared image has shape {image.shape} and dtype {image.dtype}, the card asks for "
                    f"{(pre.height, pre.width, 3)} {np.dtype(dtype)}: use models.preprocess.prepare with it"
                )
        images, step = list(batch), self._max_batch
        return self._joined([self._run(images[at : at + step]) for at in range(0, len(images), step)])

    @torch.inference_mode()
    def _run(self, prepared: Sequence[Prepared]) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(np.stack(prepared)).to(self.device).permute(0, 3, 1, 2)
        images = ((pixels.float() - self._mean) / self._scale).contiguous(memory_format=torch.channels_last)
        mixed = self._dtype != torch.float32
        with torch.autocast(self.device.type, dtype=self._dtype if mixed else None, enabled=mixed):
            descriptors, features = self.network(images)
        descriptors, features = descriptors.float(), features.float()
        norms = descriptors.norm(dim=1, keepdim=True)
        usable = torch.isfinite(norms).all() & (norms > 0).all() & torch.isfinite(features).all()
        if not bool(usable):
            raise ModelFault(
                f"{self.card.model} gave descriptors or features that are not finite: load other weights, "
                "or extract in float32"
            )
        return (descriptors / norms).cpu(), features.cpu()

    def _joined(self, parts: list[tuple[Tensor, Tensor]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        card = self.card
        if not parts:
            shape = (0, card.grid_height, card.grid_width, card.feature_dim)
            return np.zeros((0, card.descriptor_dim), np.float32), np.zeros(shape, np.float32)
        descriptors = np.concatenate([part[0].numpy() for part in parts])
        features = np.concatenate([part[1].numpy() for part in parts])
        return descriptors, np.ascontiguousarray(features)


def _best_device() -> torch.device:
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
