"""Photos encoded for sending."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.images import ImageRejected
from models.images.photo import load_pixels
from models.images.photo_encoding import encode_photo
from tests.support.pictures import photo


def test_files_are_sent_unchanged(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photo(1))
    for form in (photo(1), tmp_path / "a.jpg", str(tmp_path / "a.jpg")):
        assert encode_photo(form) == photo(1)
    with pytest.raises(ImageRejected):
        encode_photo(tmp_path / "gone.jpg")


def test_pixels_are_sent_without_loss() -> None:
    pixels = load_pixels(photo(2))
    for form in (pixels, Image.fromarray(pixels)):
        assert np.array_equal(load_pixels(encode_photo(form)), pixels)
    with pytest.raises(TypeError, match="cannot be a list"):
        encode_photo([pixels])  # type: ignore[arg-type]
