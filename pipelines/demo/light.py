"""Light and weather of the procedural city: from surfaces to the picture a camera would take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pipelines.demo.front import GLOWING
from pipelines.demo.materials import noise_tile
from pipelines.demo.surfaces import Surfaces
from pipelines.demo.weather import blind, fall_snow, wet

__all__ = ["CONDITIONS", "Condition", "light_surfaces"]

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Condition:
    """A time of day and weather.

    Attributes:
        texture: Which textures: `day`, `night` or `snow`.
        ambient: Light from all directions, per colour channel.
        sun: Light from the sun, per colour channel.
        lamp: Strength of the street lamps.
        sky: Colours at the zenith and at the horizon, 0..1.
        clouds: Contrast of the clouds, 0..1.
        colourfulness: 1 keeps the colours, 0 is grey.
        haze_m: Distance at which surfaces have faded to 1/e into the horizon's colour.
        noise: Standard deviation of the sensor noise, 0..255.
        blur_px: Largest radius of the blur, for images 320 pixels wide.
        rain: Share of the light that streaks and drops take, 0..1.
        glare: Strength of a low sun in the lens, 0..1.
    """

    texture: str
    ambient: Rgb
    sun: Rgb
    lamp: float
    sky: tuple[Rgb, Rgb]
    clouds: float
    colourfulness: float
    haze_m: float
    noise: float
    blur_px: float
    rain: float = 0.0
    glare: float = 0.0


CONDITIONS = {
    "day": Condition(
        texture="day",
        ambient=(0.80, 0.84, 0.92),
        sun=(0.50, 0.45, 0.36),
        lamp=0.0,
        sky=((0.42, 0.58, 0.82), (0.78, 0.85, 0.92)),
        clouds=0.4,
        colourfulness=1.0,
        haze_m=500.0,
        noise=1.5,
        blur_px=0.0,
    ),
    "overcast": Condition(
        texture="day",
        ambient=(0.92, 0.95, 0.99),
        sun=(0.0, 0.0, 0.0),
        lamp=0.0,
        sky=((0.62, 0.66, 0.70), (0.80, 0.82, 0.84)),
        clouds=0.25,
        colourfulness=0.75,
        haze_m=300.0,
        noise=2.5,
        blur_px=0.35,
    ),
    "night": Condition(
        texture="night",
        ambient=(0.32, 0.33, 0.40),
        sun=(0.0, 0.0, 0.0),
        lamp=1.2,
        sky=((0.03, 0.04, 0.10), (0.15, 0.14, 0.19)),
        clouds=0.15,
        colourfulness=0.90,
        haze_m=900.0,
        noise=3.0,
        blur_px=0.3,
    ),
    "snow": Condition(
        texture="snow",
        ambient=(0.92, 0.96, 1.02),
        sun=(0.0, 0.0, 0.0),
        lamp=0.0,
        sky=((0.74, 0.78, 0.83), (0.86, 0.88, 0.91)),
        clouds=0.12,
        colourfulness=0.80,
        haze_m=180.0,
        noise=2.5,
        blur_px=0.3,
    ),
    "rain": Condition(
        texture="day",
        ambient=(0.50, 0.54, 0.60),
        sun=(0.0, 0.0, 0.0),
        lamp=0.0,
        sky=((0.44, 0.47, 0.50), (0.58, 0.60, 0.62)),
        clouds=0.2,
        colourfulness=0.55,
        haze_m=90.0,
        noise=3.0,
        blur_px=0.6,
        rain=0.5,
    ),
    "glare": Condition(
        texture="day",
        ambient=(0.46, 0.44, 0.46),
        sun=(0.62, 0.48, 0.28),
        lamp=0.0,
        sky=((0.66, 0.62, 0.60), (1.0, 0.92, 0.76)),
        clouds=0.2,
        colourfulness=0.9,
        haze_m=220.0,
        noise=2.0,
        blur_px=0.3,
        glare=0.8,
    ),
}
# Towards the sun: south-west, 40 degrees up.
SUN = np.array([-0.5, -0.58, 0.64])


def light_surfaces(
    surfaces: Surfaces,
    centre: NDArray[np.float64],
    rays: NDArray[np.float32],
    lamps: list[NDArray[np.float64]],
    *,
    condition: str,
    moment: int,
) -> NDArray[np.uint8]:
    """Light the surfaces; add sky, weather, blur and sensor noise.

    Args:
        surfaces: What every pixel shows.
        centre: (3,) float64, the camera's position in metres.
        rays: (H, W, 3) float32, directions of depth 1.
        lamps: (3,) float64 each, positions of street lamps in metres.
        condition: One of `CONDITIONS`.
        moment: Seeds clouds, flakes and noise.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    look = CONDITIONS[condition]
    rng = np.random.default_rng([len(condition), ord(condition[0]), moment])
    solid = surfaces.nearness > 0
    albedo = surfaces.albedo[..., :3] * np.float32(1 / 255)
    if look.texture == "snow":
        _settle_snow(albedo, surfaces)
    light = _daylight(surfaces.normals, look)[surfaces.facing]
    if look.lamp:
        light += _lamplight(surfaces, centre, rays, lamps, look)
    lit = albedo * light
    if look.lamp:
        glow = (255 - surfaces.albedo[..., 3:]) * np.float32(1 / (255 - GLOWING))
        lit += glow * (1.15 * albedo - lit)
    clear = np.exp(-1.0 / (look.haze_m * np.maximum(surfaces.nearness, 1e-3)))[..., None]
    horizon = np.array(look.sky[1], np.float32)
    lit = horizon + clear * (lit - horizon)
    lit[~solid] = _sky(rays[~solid], look, rng)
    if look.texture == "snow":
        lit = fall_snow(lit, rng)
    if look.rain:
        lit = wet(lit, surfaces.is_road, look.rain, rng)
    if look.glare:
        lit = blind(lit, look.glare, rng)
    return _expose(lit, look, rng, is_plain=condition == "day")


def _sky(rays: NDArray[np.float32], look: Condition, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the colours of the sky in these directions, (N, 3)."""
    up = np.clip(rays[:, 2] / np.sqrt((rays * rays).sum(-1)), 0.02, 1.0)
    zenith, horizon = (np.array(colour, np.float32) for colour in look.sky)
    sky = horizon + (zenith - horizon) * np.sqrt(up)[:, None]
    # Clouds lie on a plane, so they shrink towards the horizon.
    ceiling = rays[:, :2] * (45.0 / np.maximum(rays[:, 2:], 0.05))
    at = ceiling.astype(np.int64) + rng.integers(0, 512, 2)
    noise = noise_tile(is_smooth=True)[at[:, 1] % 512, at[:, 0] % 512]
    cover = np.float32(look.clouds) * np.clip(noise, 0.0, 1.2) * np.clip(up * 4.0, 0.0, 1.0)
    bright = np.float32(min(1.0, 1.15 * max(look.sky[1])))
    clouded: NDArray[np.float32] = sky + cover[:, None] * (bright - sky)
    return clouded


def _daylight(normals: list[NDArray[np.float64]], look: Condition) -> NDArray[np.float32]:
    directions = np.array(normals)
    facing = np.clip(directions @ SUN, 0.0, None)
    # Surfaces without direction, such as trees, take half of the sun.
    facing = np.where(np.abs(directions).sum(1) == 0, 0.5, facing)
    above = 0.88 + 0.12 * directions[:, 2:]
    light: NDArray[np.float32] = np.array(look.ambient) * above + np.array(look.sun) * facing[:, None]
    return light.astype(np.float32)


def _lamplight(
    surfaces: Surfaces,
    centre: NDArray[np.float64],
    rays: NDArray[np.float32],
    lamps: list[NDArray[np.float64]],
    look: Condition,
) -> NDArray[np.float32]:
    points = rays / np.maximum(surfaces.nearness, 1e-2)[..., None]
    total = np.zeros(surfaces.nearness.shape, np.float32)
    square = np.einsum("hwc,hwc->hw", points, points)
    for lamp in lamps:
        offset = (lamp - centre).astype(np.float32)
        away = square - points @ (2.0 * offset) + (offset @ offset + np.float32(9.0))
        # Lamp shades: above the lamp only a third of the light.
        total += np.where(points[..., 2] > offset[2], np.float32(4.2), np.float32(12.0)) / away
    warm = np.array((1.0, 0.74, 0.42), np.float32)
    light: NDArray[np.float32] = np.minimum(np.float32(look.lamp) * total, np.float32(1.6))[..., None] * warm
    return light


def _settle_snow(albedo: NDArray[np.float32], surfaces: Surfaces) -> None:
    upward = np.array([normal[2] > 0.9 for normal in surfaces.normals])[surfaces.facing]
    share = np.where(surfaces.is_road, 0.55, 0.85)[upward].astype(np.float32)[:, None]
    albedo[upward] += share * (np.array((0.95, 0.97, 1.0), np.float32) - albedo[upward])


def _expose(
    picture: NDArray[np.float32], look: Condition, rng: np.random.Generator, *, is_plain: bool
) -> NDArray[np.uint8]:
    """Apply colourfulness, exposure, vignette, blur and sensor noise."""
    height, width = picture.shape[:2]
    grey = (picture @ np.array((0.299, 0.587, 0.114), np.float32))[..., None]
    gain = rng.uniform(0.96, 1.04) if is_plain else rng.uniform(0.85, 1.15)
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    vignette = np.float32(255 * gain) * (1 - np.float32(0.10) * (x * x + y * y))
    picture = (grey + np.float32(look.colourfulness) * (picture - grey)) * vignette
    if look.blur_px:
        image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
        radius = look.blur_px * width / 320 * rng.uniform(0.3, 1.0)
        picture = np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)
    noise = rng.standard_normal((height, width), np.float32)[..., None]
    return np.clip(picture + np.float32(look.noise) * noise, 0, 255).astype(np.uint8)
