"""Materials of the procedural city, drawn flat: noise, colours, bare walls and roofs."""

from __future__ import annotations

import colorsys
from functools import lru_cache
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipelines.demo.buildings import STYLES, Building

__all__ = ["PX_PER_M", "Colour", "colour_of", "draw_roof", "draw_wall", "noise_tile", "scaled", "wall_pixels"]

PX_PER_M = 20
NOISE_PX = 512
Colour = tuple[int, int, int]


@lru_cache(maxsize=2)
def noise_tile(*, is_smooth: bool = False) -> NDArray[np.float32]:
    """Return tileable noise of several octaves: (512, 512) float32, mean 0, deviation 1."""
    rng = np.random.default_rng(20)
    total = np.zeros((NOISE_PX, NOISE_PX), np.float32)
    rough = ((512, 0.5), (128, 0.6), (32, 0.9), (8, 1.0))
    for cells, weight in ((64, 0.15), (32, 0.3), (16, 0.6), (8, 1.0)) if is_smooth else rough:
        grid = Image.fromarray(np.pad(rng.standard_normal((cells, cells)).astype(np.float32), 2, mode="wrap"))
        scale = NOISE_PX // cells
        wide = np.asarray(grid.resize(((cells + 4) * scale,) * 2, Image.Resampling.BICUBIC))
        total += weight * wide[2 * scale : 2 * scale + NOISE_PX, 2 * scale : 2 * scale + NOISE_PX]
    normal: NDArray[np.float32] = (total - total.mean()) / total.std()
    return normal


def _noise_patch(random: Random, width: int, height: int) -> NDArray[np.float32]:
    rows = (np.arange(height) + random.randrange(NOISE_PX)) % NOISE_PX
    columns = (np.arange(width) + random.randrange(NOISE_PX)) % NOISE_PX
    return noise_tile()[rows[:, None], columns[None, :]]


def colour_of(hue: float, saturation: float, value: float) -> Colour:
    """Return RGB, 0..255, of a hue that wraps around at 1; saturation and value are clipped to 0..1."""
    saturation, value = min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0)
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return int(255 * r), int(255 * g), int(255 * b)


def scaled(colour: Colour, factor: float) -> Colour:
    """Return a colour made darker or brighter."""
    r, g, b = (min(255, int(factor * c)) for c in colour)
    return r, g, b


def wall_pixels(random: Random, material: str, colour: Colour, width: int, height: int) -> Image.Image:
    """Draw bare wall of brick, stone, panels or plaster."""
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    bright = 1.0 + np.float32(0.05) * _noise_patch(random, width, height)
    sizes = {
        "brick": ((4, 10), (5, 12), (3, 8)),
        "stone": ((10, 20), (13, 26), (8, 24)),
        "panel": ((30, 40), (22, 60), (60, 28), (8, 400)),
        "plaster": ((1, 1),),
    }
    course, length = random.choice(sizes[material])
    if material in {"brick", "stone"}:
        low, high = (0.78, 1.15) if material == "brick" else (0.86, 1.1)
        tones = np.random.default_rng(random.getrandbits(32)).uniform(low, high, (64, 64)).astype(np.float32)
        row, shift = y // course, (y // course % 2) * (length // 2)
        bright *= tones[row % 64, (x + shift) // length % 64]
        joint = np.float32(random.uniform(0.6, 1.3) if material == "brick" else 0.72)
        bright[(y % course == 0) | ((x + shift) % length == 0)] *= joint
    elif material == "panel":
        bright[(y % course == 0) | (x % length == 0)] *= np.float32(0.65)
    # Rain leaves streaks below the eaves, traffic leaves dirt above the pavement.
    fade = np.exp(-y / (0.3 * height)).astype(np.float32)
    bright += np.float32(0.05) * _noise_patch(random, width, 1) * fade
    bright -= (0.16 * np.exp((y - height) / 14.0)).astype(np.float32)
    pixels = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        pixels[..., channel] = np.clip(bright * np.float32(colour[channel]), 0, 255)
    return Image.fromarray(pixels)


@lru_cache(maxsize=128)
def draw_roof(building: Building, light: str) -> Image.Image:
    """Draw the front slope of a pitched roof: tiles, dormers, skylights."""
    random = Random(building.key + 1)
    width, height = round(building.width_m * PX_PER_M), round(1.8 * building.roof_m * PX_PER_M)
    colour = random.choice(((140, 62, 44), (120, 72, 56), (78, 80, 88), (96, 92, 90), (160, 84, 60)))
    if light == "snow":
        colour = (232, 236, 243)
    y, x = np.mgrid[0:height, 0:width]
    bright = (
        1.0
        + 0.06 * _noise_patch(random, width, height)
        - 0.18 * (y % 6 == 0)
        - 0.06 * ((x + 3 * (y // 6)) % 8 == 0)
    )
    pixels = np.clip(bright[..., None] * np.array(colour, np.float32), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for _ in range(random.choice((0, 1, 2, 3))):
        at = random.randint(6, max(7, width - 30))
        draw.rectangle(
            (at, height // 3, at + 18, height // 3 + 24), fill=(70, 78, 88), outline=(50, 46, 44), width=2
        )
    image.putalpha(255)
    return image


@lru_cache(maxsize=128)
def draw_wall(building: Building, depth_m: float) -> Image.Image:
    """Draw the bare side of a building, its gable cut out along the roof."""
    random = Random(building.key + 2)
    style = STYLES[building.style]
    width = round(depth_m * PX_PER_M / 2)
    height = round((building.height_m + building.roof_m) * PX_PER_M / 2)
    colour = colour_of(style.hue, 0.5 * style.saturation, 0.8 * style.value)
    image = wall_pixels(random, random.choice(("brick", "plaster")), colour, width, height)
    alpha = Image.new("L", image.size, 255)
    eave = round(building.roof_m * PX_PER_M / 2)
    if eave:
        cut = ImageDraw.Draw(alpha)
        cut.polygon(((0, 0), (width // 2, 0), (0, eave)), fill=0)
        cut.polygon(((width, 0), (width // 2, 0), (width, eave)), fill=0)
    image.putalpha(alpha)
    return image
