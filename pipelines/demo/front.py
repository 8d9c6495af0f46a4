"""The facade being drawn, as its floors, windows and ground floor see it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from pipelines.demo.buildings import Style
from pipelines.demo.materials import Colour

__all__ = ["GLOWING", "Front"]

# Lowest alpha of a surface that emits light.
GLOWING = 160


@dataclass
class Front:
    """A facade being drawn: its pixels and the choices that its parts share.

    Attributes:
        image: RGB pixels.
        glow: Alpha, see `pipelines.demo.facade`.
        draw: Draws on `image`.
        shine: Draws on `glow`.
        random: Choices that stay the same in every light.
        mood: Choices that differ between day, night and snow, such as lit windows.
        style: Of the building.
        colour: Of its walls.
        trim: Colour of cornices, sills and surrounds.
        is_night: Whether lamps are lit.
        is_snow: Whether snow lies on ledges.
    """

    image: Image.Image
    glow: Image.Image
    draw: ImageDraw.ImageDraw
    shine: ImageDraw.ImageDraw
    random: Random
    mood: Random
    style: Style
    colour: Colour
    trim: Colour
    is_night: bool
    is_snow: bool
