"""Feature extraction: batches of photos to global descriptors and local features."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.errors import ModelFault
from models.images.photo import Photo, is_photo, load_pixels
from models.images.preprocess import prepare
from models.images.preprocess_device import prepare_on_device
from models.networks.codes import packed_signs
from models.networks.inference_linears import keep_for_inference
from models.runtime.allocator import keep_freed_memory
from models.runtime.compiled import compiled, padded_size
from models.runtime.execution import best_device, multiply_exactly
from models.runtime.transfers import Transfers, one_ahead
from storage.card import Card

__all__ = ["Extraction", "Extractor", "Prepared"]

Prepared = NDArray[np.uint8] | NDArray[np.float32]

# Maximum images per batch. On a CPU larger batches are slower, since their feature maps exceed the cache
# (measured: 33 ms per image in batches of 8, 47 ms in batches of 32).
_CPU_BATCH = 8
_ACCELERATOR_BATCH = 64


class Extraction(NamedTuple):
    """What a model makes of photos.

    Attributes:
        descriptors: (B, D) float32, unit L2 norm.
        features: (B, H, W, C) float32, unit L2 norm per cell; or encoded rows, (B, row_bytes) uint8.
        codes: (B, code_bits / 8) uint8, packed bits, the first in a byte's highest; None where the model
            makes none.
    """

    descriptors: NDArray[np.float32]
    features: NDArray[Any]
    codes: NDArray[np.uint8] | None


class Extractor:
    """Runs a network over images.

    Attributes:
        card: The card of the model.
        network: The network, in evaluation mode and prepared for inference.
        device: The device it runs on.
    """

    def __init__(
        self,
        network: nn.Module,
        card: Card,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        compile_network: bool = False,
    ) -> None:
        """Move the network to its device and prepare it for inference.

        On a CPU this makes the whole process keep freed memory, see `models.runtime.allocator`.

        Args:
            network: Maps (B, 3, h, w) normalised float images to descriptors and features, and maybe to
                (B, bits) float values whose signs are codes. It is modified in place for inference, see
                `models.networks.inference_linears`.
            card: Its card.
            device: Default: the accelerator if available, else the CPU.
            dtype: Precision of the network's arithmetic. Default: bfloat16 on an accelerator, float32 on a
                CPU; see `models.runtime.execution`.
            compile_network: Use torch.compile: faster on an accelerator, but takes up to minutes for each of
                a few batch sizes and needs a C compiler.

        Raises:
            ValueError: the network already belongs to another extractor.
        """
        self.card = card
        self.device = torch.device(device) if device is not None else best_device()
        on_cpu = self.device.type == "cpu"
        if on_cpu:
            keep_freed_memory()
        self._max_batch = _CPU_BATCH if on_cpu else _ACCELERATOR_BATCH
        self._dtype = dtype or (torch.float32 if on_cpu else torch.bfloat16)
        multiply_exactly(self.device, self._dtype)
        exact = on_cpu or self._dtype == torch.float32
        self._device_resize = not exact
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)
        if not getattr(network, "keep_layers", False):
            laid_out = on_cpu and not compile_network
            keep_for_inference(self.network, self._dtype, laid_out=laid_out)
            lay_out = getattr(network, "lay_out_convolutions", None)
            if laid_out and self._dtype == torch.float32 and callable(lay_out):
                lay_out()
        self._forward: Callable[[Tensor], Any] = self.network
        if compile_network:
            self._forward = compiled(self.network, max_batch=self._max_batch)
        self._transfers = Transfers(self.device)
        pre = card.preprocessing
        self._mean = torch.tensor(pre.mean, device=self.device).mul(255).view(1, 3, 1, 1)
        self._scale = torch.tensor(pre.std, device=self.device).mul(255).view(1, 3, 1, 1)

    @property
    def precision(self) -> str:
        """Type of the network's arithmetic, such as `float32` or `bfloat16`."""
        return str(self._dtype).removeprefix("torch.")

    @property
    def compiled(self) -> bool:
        """Whether the network runs compiled."""
        return self._forward is not self.network

    def warm_up(self, max_batch: int) -> None:
        """Compile all batch sizes and initialise the accelerator before the first batch.

        Args:
            max_batch: Largest batch that will be extracted.

        Raises:
            CannotCompile: compiling is not possible here.
        """
        pre, limit = self.card.preprocessing, self._max_batch
        if self.compiled:
            sizes = {padded_size(count, max_batch=limit) for count in range(1, min(max_batch, limit) + 1)}
        else:
            sizes = set() if self.device.type == "cpu" else {1}
        for size in sorted(sizes):
            shape = (size, pre.height, pre.width, 3)
            blank: Prepared = np.zeros(shape, np.uint8)
            if pre.resize != "pil_bilinear":
                blank = np.zeros(shape, np.float32)
            with contextlib.suppress(ModelFault):
                self.extract_prepared(blank)

    def extract(self, images: Sequence[Photo]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute descriptors and local features.

        Args:
            images: B photos of any sizes: encoded bytes, paths, PIL images or upright (H, W, 3) uint8 RGB
                arrays, see `models.images.photo.load_pixels`.

        Returns:
            descriptors: (B, D) float32, unit L2 norm.
            features: (B, H, W, C) float32, unit L2 norm per cell.

        Raises:
            ImageRejected: a photo cannot be read or decoded, or an array is not (H, W, 3) or (H, W) uint8.
            TypeError: a photo is of another type, or `images` is a single photo.
            ModelFault: the network's output cannot be compared.
            CannotCompile: compilation was requested and is not possible here.
        """
        return self.extraction(images)[:2]

    def extraction(self, images: Sequence[Photo]) -> Extraction:
        """Compute descriptors, local features and codes; arguments and errors as of `extract`."""
        if is_photo(images):
            raise TypeError("extract takes a sequence of photos: pass [photo] for a single one")
        return self._run(images, self._resized if self._device_resize else self._prepared)

    def extract_prepared(
        self,
        batch: Sequence[Prepared] | Prepared,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute descriptors and local features of images that `preprocess.prepare` has resized.

        Args:
            batch: (B, h, w, 3), or a sequence of (h, w, 3), uint8 or float32 in 0..255 as `prepare` returns.

        Returns:
            As `extract`.

        Raises:
            ValueError: a shape or dtype is not what `prepare` makes with this card.
            ModelFault: the network's output cannot be compared.
            CannotCompile: compilation was requested and is not possible here.
        """
        return self.prepared_extraction(batch)[:2]

    def prepared_extraction(self, batch: Sequence[Prepared] | Prepared) -> Extraction:
        """Compute descriptors, local features and codes; arguments and errors as of `extract_prepared`."""
        self._check(batch)
        return self._run(list(batch), self._transfers.upload)

    def extract_encoded(
        self, batch: Sequence[Prepared] | Prepared, encode: Callable[[Tensor], Tensor]
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Compute descriptors and encoded local features of prepared images, encoding on the device.

        Args:
            batch: As for `extract_prepared`, at least one image.
            encode: Encodes (B, H, W, C) float32 features on `device`, such as a
                `models.feature_encoder.FeatureEncoder`.

        Returns:
            descriptors: (B, D) float32, unit L2 norm.
            rows: The encoded features of all images.

        Raises:
            ValueError, ModelFault, CannotCompile: as `extract_prepared`.
        """
        return self.encoded_extraction(batch, encode)[:2]

    def encoded_extraction(
        self, batch: Sequence[Prepared] | Prepared, encode: Callable[[Tensor], Tensor]
    ) -> Extraction:
        """Compute descriptors, encoded features and codes; arguments and errors as of `extract_encoded`."""
        self._check(batch)
        return self._run(list(batch), self._transfers.upload, encode)

    def _check(self, batch: Sequence[Prepared] | Prepared) -> None:
        """Reject images that `prepare` did not make with this card."""
        pre = self.card.preprocessing
        dtype = np.uint8 if pre.resize == "pil_bilinear" else np.float32
        for image in batch:
            if image.shape != (pre.height, pre.width, 3) or image.dtype != dtype:
                raise ValueError(
                    f"prepared image has shape {image.shape} and dtype {image.dtype}, the card requires "
                    f"{(pre.height, pre.width, 3)} {np.dtype(dtype)}: use "
                    "models.images.preprocess.prepare with it"
                )

    def _prepared(self, photos: Sequence[Photo]) -> Tensor:
        return self._transfers.upload(
            [prepare(load_pixels(photo), self.card.preprocessing) for photo in photos]
        )

    def _resized(self, photos: Sequence[Photo]) -> Tensor:
        pre, upload = self.card.preprocessing, self._transfers.upload
        return torch.cat([prepare_on_device(load_pixels(photo), pre, upload=upload) for photo in photos])

    def _run(
        self,
        images: Sequence[Any],
        load: Callable[[Sequence[Any]], Tensor],
        encode: Callable[[Tensor], Tensor] | None = None,
    ) -> Extraction:
        """Extract in bounded batches, which `load` uploads as (B, h, w, 3)."""
        step, card = self._max_batch, self.card

        def started() -> Iterator[Callable[[], tuple[Tensor, ...]]]:
            for at in range(0, len(images), step):
                yield self._start(images[at : at + step], load, encode)

        # Copied batch by batch, which frees the pinned memory of each at once.
        results: list[NDArray[Any]] = []
        done = 0
        for *tensors, usable in one_ahead(started()):
            if not bool(usable):
                raise ModelFault(
                    f"{card.model} gave descriptors or features that are not finite: load other weights, "
                    "or extract in float32"
                )
            parts = [tensor.numpy() for tensor in tensors]
            results = results or [np.empty((len(images), *part.shape[1:]), part.dtype) for part in parts]
            for whole, part in zip(results, parts, strict=True):
                whole[done : done + len(part)] = part
            done += len(parts[0])
        if not results:
            shape = (0, card.grid_height, card.grid_width, card.feature_dim)
            results = [np.zeros((0, card.descriptor_dim), np.float32), np.zeros(shape, np.float32)]
            if card.code_bits is not None:
                results.append(np.zeros((0, card.code_bits // 8), np.uint8))
        return Extraction(results[0], results[1], results[2] if len(results) > 2 else None)

    @torch.inference_mode()
    def _start(
        self,
        images: Sequence[Any],
        load: Callable[[Sequence[Any]], Tensor],
        encode: Callable[[Tensor], Tensor] | None,
    ) -> Callable[[], tuple[Tensor, ...]]:
        """Queue a batch; the returned function waits for descriptors, features, codes and their validity."""
        pixels = load(images).permute(0, 3, 1, 2)
        inputs = ((pixels.float() - self._mean) / self._scale).contiguous(memory_format=torch.channels_last)
        mixed = self._dtype != torch.float32
        with torch.autocast(self.device.type, dtype=self._dtype if mixed else None, enabled=mixed):
            descriptors, features, *values = self._forward(inputs)
        descriptors, features = descriptors.float(), features.float().contiguous()
        norms = descriptors.norm(dim=1, keepdim=True)
        usable = torch.isfinite(norms).all() & (norms > 0).all() & torch.isfinite(features).all()
        for each in values:
            usable &= torch.isfinite(each).all()
        output = features if encode is None else encode(features)
        codes = [packed_signs(each) for each in values]
        return self._transfers.download(descriptors / norms, output, *codes, usable)
