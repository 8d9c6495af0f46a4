"""Generated photos for benchmarks; they take as long as real ones of their size."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

DRAWN = 64
PHOTO = (640, 480)  # as in the field's data sets


def make_photos(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Draw `DRAWN` photos, smooth with some detail, and give each many names: `count` files in all."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for at in range(count):
        path = folder / f"{at:06d}.jpg"
        if at >= DRAWN:
            os.link(folder / f"{at % DRAWN:06d}.jpg", path)
            continue
        noise = generator.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        smooth = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        grain = generator.normal(0, 6, (size[1], size[0], 3))
        pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)
    return folder
