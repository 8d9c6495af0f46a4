"""Resizing: exact agreement with Pillow, with torch, and with the published input."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from models.images.decoder import decode_image
from models.images.preprocess import prepare
from storage.card import Preprocessing, ResizeMode
from tests.support.paths import GOLDEN, ROOT

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def target(resize: ResizeMode, height: int = 224, width: int = 224) -> Preprocessing:
    return Preprocessing(resize, height, width, *IMAGENET)


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_prepare_tensor_bilinear_then_normalised_equals_published_input() -> None:
    pixels = decode_image((GOLDEN / "image_0.png").read_bytes()).pixels
    prepared = prepare(pixels, target("tensor_bilinear"))
    mean, std = (np.array(values, np.float32) for values in IMAGENET)
    published = np.load(GOLDEN / "selavpr_small.npz")["input"][0].transpose(1, 2, 0)
    np.testing.assert_allclose((prepared / 255 - mean) / std, published, atol=2e-6)


@pytest.mark.parametrize("size", [(480, 640), (3000, 4000), (100, 50), (224, 224), (301, 777), (8, 8)])
@pytest.mark.parametrize("target_size", [(224, 224), (56, 98)])
def test_prepare_tensor_bilinear_equals_torch_interpolate(
    size: tuple[int, int], target_size: tuple[int, int]
) -> None:
    pixels = noise(*size)
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(planes, size=target_size, mode="bilinear", align_corners=False)
    prepared = prepare(pixels, target("tensor_bilinear", *target_size))
    assert prepared.dtype == np.float32
    # Depending on its thread count torch fuses the position's multiply and add or not: that moves a sample by
    # up to one unit in the last place, times 255 between neighbours of opposite extremes.
    bound = 255 * float(np.spacing(np.float32(max(size))))
    np.testing.assert_allclose(prepared, expected[0].permute(1, 2, 0).numpy(), rtol=0, atol=bound)


def test_prepare_pil_bilinear_equals_pillow() -> None:
    pixels = noise(300, 500)
    expected = np.asarray(Image.fromarray(pixels).resize((98, 56), Image.Resampling.BILINEAR))
    prepared = prepare(pixels, target("pil_bilinear", 56, 98))
    assert prepared.dtype == np.uint8
    assert np.array_equal(prepared, expected)


def test_prepare_modes_differ_on_large_photo() -> None:
    pixels = noise(1000, 1000)
    spread = [float(prepare(pixels, target(mode)).std()) for mode in ("pil_bilinear", "tensor_bilinear")]
    assert spread[0] < 0.6 * spread[1]


@pytest.mark.parametrize("mode", ["pil_bilinear", "tensor_bilinear"])
def test_prepare_readonly_sliced_view_accepted(mode: ResizeMode) -> None:
    whole = noise(200, 300)
    view = whole[::2, ::3]
    view.flags.writeable = False
    assert np.array_equal(prepare(view, target(mode)), prepare(view.copy(), target(mode)))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((9, 9), np.uint8),
        np.zeros((9, 9, 4), np.uint8),
        np.zeros((9, 9, 3), np.float32),
        np.zeros((0, 9, 3), np.uint8),
    ],
)
def test_prepare_other_arrays_refused(pixels: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="decode_image"):
        prepare(pixels, target("pil_bilinear"))


def test_prepare_unknown_mode_refused() -> None:
    with pytest.raises(ValueError, match="use pil_bilinear, tensor_bilinear or tensor_antialiased"):
        prepare(noise(9, 9), target("lanczos"))  # type: ignore[arg-type]


def test_import_preprocess_needs_no_torch() -> None:
    code = "import sys, models.images.preprocess; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
