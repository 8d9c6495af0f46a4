"""Sizes of coded pictures in AVIF files, whatever their header states."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from models.images import ImageRejected, decode_image
from models.images.av1 import avif_pictures
from tests.support.encoded_images import encoded, scene


def picture(width: int, height: int, *, alpha: bool = False, frames: int = 1, **options: Any) -> bytes:
    image = scene(width, height)
    if alpha:
        image.putalpha(scene(width, height).convert("L"))
    if frames > 1:
        options |= {"save_all": True, "append_images": [image.rotate(90)] * (frames - 1), "duration": 100}
    return encoded(image, "AVIF", **({"speed": 10} | options))


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 1),
        ({"quality": 100, "subsampling": "4:4:4"}, 1),
        ({"subsampling": "4:0:0", "range": "limited"}, 1),
        ({"tile_rows": 1, "tile_cols": 1, "speed": 6}, 1),
        ({"alpha": True}, 2),
        ({"frames": 3}, 2),  # the first one as an item and as a sample
        ({"frames": 3, "alpha": True}, 4),
    ],
)
@pytest.mark.parametrize("size", [(64, 48), (321, 97), (520, 300)])
def test_the_size_is_that_of_the_picture(size: tuple[int, int], options: dict[str, Any], count: int) -> None:
    data = picture(*size, **options)
    assert avif_pictures(data) == [size] * count
    assert decode_image(data).pixels.shape[:2] == size[::-1]


def test_a_small_header_over_a_large_picture_is_rejected_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, at = bytearray(picture(640, 480)), -1
    while (at := data.find(b"ispe", at + 1)) >= 0:
        data[at + 8 : at + 16] = struct.pack(">II", 64, 48)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("pixels were decoded"))
    with pytest.raises(ImageRejected) as refused:
        decode_image(bytes(data), max_pixels=640 * 480 - 1)
    assert refused.value.reason == "too_many_pixels"


def test_a_larger_picture_behind_the_first_is_found() -> None:
    small, large = picture(64, 48), picture(520, 300)
    header = large[large.rindex(b"mdat") + 4 :]
    stored = small[small.rindex(b"mdat") + 4 :]
    at = small.rindex(b"mdat")
    joined = small[: at - 4] + struct.pack(">I", 8 + len(stored) + len(header)) + b"mdat" + stored + header
    location = joined.index(b"iloc") + 4
    for field in range(location, location + 40):  # the length of the item's extent
        if joined[field : field + 4] == struct.pack(">I", len(stored)):
            joined = joined[:field] + struct.pack(">I", len(stored) + len(header)) + joined[field + 4 :]
    assert avif_pictures(joined) == [(520, 300)]


def test_damaged_files_are_refused_or_measured() -> None:
    sources = [picture(64, 48), picture(64, 48, alpha=True, frames=2)]
    for seed in range(2_000):
        rng = np.random.default_rng(seed)
        data = bytearray(sources[seed % 2])
        for position in rng.integers(0, min(len(data), 900), 4):
            data[position] = rng.integers(0, 256)
        data = data[: rng.integers(12, len(data) + 1)] if seed % 3 == 0 else data
        try:
            sizes = avif_pictures(bytes(data))
        except ValueError:
            continue
        assert all(0 < side <= 1 << 16 for size in sizes for side in size), seed
