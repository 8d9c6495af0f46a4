"""Resizing on the device agrees with the exact reference, and falls back to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.images import preprocess_device
from models.images.preprocess import prepare
from models.images.preprocess_device import prepare_on_device
from storage.card import Preprocessing, ResizeMode

SIZES = [(480, 640), (2000, 3000), (100, 50), (224, 224), (301, 777), (8, 8)]


class Uploads:
    """What was sent to the device, which is the CPU."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, arrays: Sequence[NDArray[Any]]) -> Tensor:
        self.shapes.extend(array.shape for array in arrays)
        return torch.from_numpy(np.stack(arrays))


def target(resize: ResizeMode, height: int = 224, width: int = 224) -> Preprocessing:
    return Preprocessing(resize, height, width, (0.5,) * 3, (0.5,) * 3)


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target_size", [(224, 224), (56, 98)])
def test_prepare_on_device_pil_bilinear_is_at_most_the_next_level(
    size: tuple[int, int], target_size: tuple[int, int]
) -> None:
    pixels, uploads = noise(*size), Uploads()
    resized = prepare_on_device(pixels, target("pil_bilinear", *target_size), upload=uploads)
    expected = prepare(pixels, target("pil_bilinear", *target_size)).astype(np.float32)
    assert uploads.shapes == [pixels.shape]
    assert (resized.shape, resized.dtype) == ((1, *target_size, 3), torch.float32)
    difference = np.abs(resized[0].numpy() - expected)
    # Half-way sums go either way: many where the sizes' ratio is a round number, such as 100 to 56.
    assert set(np.unique(difference)) <= {0, 1}
    assert difference.mean() < 0.3


@pytest.mark.parametrize("size", SIZES)
def test_prepare_on_device_tensor_bilinear_equals_prepare(size: tuple[int, int]) -> None:
    pixels, uploads = noise(*size), Uploads()
    resized = prepare_on_device(pixels, target("tensor_bilinear"), upload=uploads)
    assert uploads.shapes == [pixels.shape]
    # The bound of test_preprocess.py: a sample's position may be one unit in the last place off.
    bound = 255 * float(np.spacing(np.float32(max(size))))
    expected = prepare(pixels, target("tensor_bilinear"))
    np.testing.assert_allclose(resized[0].numpy(), expected, rtol=0, atol=bound)


@pytest.mark.parametrize("resize", ["pil_bilinear", "tensor_bilinear"])
@pytest.mark.parametrize(("limit", "value"), [("_MAX_PIXELS", 30_000), ("_MAX_REDUCTION", 2)])
def test_prepare_on_device_photo_over_its_limits_is_resized_on_the_host(
    monkeypatch: pytest.MonkeyPatch, resize: ResizeMode, limit: str, value: int
) -> None:
    monkeypatch.setattr(preprocess_device, limit, value)
    uploads, preprocessing = Uploads(), target(resize, 56, 70)
    for pixels, shape in ((noise(112, 140), (112, 140, 3)), (noise(200, 151), (56, 70, 3))):
        resized = prepare_on_device(pixels, preprocessing, upload=uploads)
        assert uploads.shapes.pop() == shape
        np.testing.assert_allclose(resized[0].numpy(), prepare(pixels, preprocessing), atol=1)
    assert np.array_equal(resized[0].numpy(), prepare(pixels, preprocessing))


def test_prepare_on_device_other_arrays_refused() -> None:
    for pixels in (
        np.zeros((9, 9), np.uint8),
        np.zeros((9, 9, 3), np.float32),
        np.zeros((0, 9, 3), np.uint8),
    ):
        with pytest.raises(ValueError, match="decode_image"):
            prepare_on_device(pixels, target("pil_bilinear"), upload=Uploads())
    with pytest.raises(ValueError, match="use pil_bilinear, tensor_bilinear or tensor_antialiased"):
        prepare_on_device(noise(9, 9), target("lanczos"), upload=Uploads())  # type: ignore[arg-type]
