"""Street fronts of the procedural city: facades and fences, drawn flat.

Facades are RGBA at `PX_PER_M` pixels per metre. Alpha 0 is a hole, 255 a surface that only reflects light;
values in between, down to `GLOWING`, mark surfaces that emit light (lit windows and signs at night).
"""

from __future__ import annotations

from functools import lru_cache
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from pipelines.demo.buildings import STYLES, Building
from pipelines.demo.front import GLOWING, Front
from pipelines.demo.ground_floor import draw_ground_floor, draw_word
from pipelines.demo.materials import PX_PER_M, colour_of, scaled, wall_pixels
from pipelines.demo.window import Window

__all__ = ["draw_facade"]


@lru_cache(maxsize=160)
def draw_facade(building: Building, light: str) -> Image.Image:
    """Draw the street front of a building as it looks by `day`, `night` or `snow`."""
    random, mood = Random(building.key), Random(f"{building.key}/{light}")
    style = STYLES[building.style]
    width, height = round(building.width_m * PX_PER_M), round(building.height_m * PX_PER_M)
    if building.is_gap:
        return _draw_fence(random, width, height)
    hue = style.hue + random.gauss(0, 0.05) if random.random() < 0.75 else random.random()
    saturation, value = style.saturation * random.uniform(0.5, 1.3), style.value * random.uniform(0.7, 1.2)
    colour = colour_of(hue, saturation, value)
    image = wall_pixels(random, random.choice(style.materials), colour, width, height)
    glow = Image.new("L", image.size, 255)
    trim = random.choice(((232, 228, 218), scaled(colour, 1.25), scaled(colour, 0.6), (120, 110, 100)))
    front = Front(
        image=image,
        glow=glow,
        draw=ImageDraw.Draw(image),
        shine=ImageDraw.Draw(glow),
        random=random,
        mood=mood,
        style=style,
        colour=colour,
        trim=trim,
        is_night=light == "night",
        is_snow=light == "snow",
    )
    ground = round(3.9 * PX_PER_M)
    _draw_floors(front, building, ground)
    draw_ground_floor(front, height - ground)
    _draw_extras(front, ground)
    image.putalpha(glow)
    return image


def _draw_floors(front: Front, building: Building, ground: int) -> None:
    random, draw = front.random, front.draw
    width, height = front.image.size
    top = round(random.uniform(0.35, 0.9) * PX_PER_M)
    mean_w, mean_h = front.style.window_m
    window_w = round(mean_w * random.uniform(0.7, 1.4) * PX_PER_M)
    floor_px = (height - ground - top) / max(building.floors - 1, 1)
    window_h = round(min(mean_h * random.uniform(0.8, 1.2) * PX_PER_M, 0.78 * floor_px))
    pitch = window_w * random.uniform(1.45, 2.3)
    bays = max(1, int((width - 0.5 * PX_PER_M) / pitch))
    pair = random.random() < 0.2
    pane = Window(front, window_w, window_h)
    has_course = random.random() < 0.5
    for floor in range(building.floors - 1):
        y = round(top + floor * floor_px + 0.45 * (floor_px - window_h))
        if has_course:
            edge = round(top + (floor + 1) * floor_px)
            draw.rectangle((0, edge - 4, width, edge), fill=front.trim)
            draw.line((0, edge + 1, width, edge + 1), fill=scaled(front.colour, 0.55))
        for bay in range(bays):
            x = round((bay + 0.5) * width / bays - window_w / 2)
            if pair:
                x += round(0.16 * width / bays) * (1 if bay % 2 == 0 else -1)
            if random.random() < 0.03:
                continue
            pane.draw(x, y)
    _draw_cornice(front, top)


def _draw_cornice(front: Front, top: int) -> None:
    random, draw, width = front.random, front.draw, front.image.width
    depth = max(4, round(top * random.uniform(0.4, 0.8)))
    draw.rectangle((0, 0, width, depth), fill=front.trim)
    draw.rectangle((0, depth, width, depth + 2), fill=scaled(front.trim, 0.5))
    if random.random() < 0.5:
        step = random.choice((8, 11, 16))
        for x in range(0, width, step):
            draw.rectangle((x, depth - 4, x + step // 2, depth), fill=scaled(front.trim, 0.65))
    if front.is_snow:
        draw.rectangle((0, 0, width, 3), fill=(240, 243, 248))


def _draw_extras(front: Front, ground: int) -> None:
    """Draw what a building collects over the years: pipes, boxes, ivy, graffiti, upright signs."""
    random, draw = front.random, front.draw
    width, height = front.image.size
    if random.random() < 0.6:
        x = random.choice((3, width - 6))
        tone = random.choice(((70, 70, 72), (150, 110, 80), (170, 174, 170)))
        draw.rectangle((x, 6, x + 2, height), fill=tone)
    for _ in range(random.choice((0, 0, 1, 2, 4))):
        x, y = random.randint(4, width - 22), random.randint(20, max(21, height - ground))
        draw.rectangle((x, y, x + 14, y + 10), fill=(208, 208, 204), outline=(120, 120, 118))
        draw.ellipse((x + 2, y + 2, x + 8, y + 8), fill=(90, 90, 92))
    if random.random() < 0.1:
        _draw_ivy(front)
    if random.random() < 0.15:
        _draw_upright_sign(front, ground)
    if random.random() < 0.12:
        x, y = random.randint(0, width // 2), height - random.randint(26, 40)
        for _ in range(5):
            tint = colour_of(random.random(), 0.8, 0.8)
            points = [(x + random.randint(0, 60), y + random.randint(0, 22)) for _ in range(5)]
            draw.line(points, fill=tint, width=2, joint="curve")


def _draw_ivy(front: Front) -> None:
    random, draw = front.random, front.draw
    width, height = front.image.size
    rng = np.random.default_rng(random.getrandbits(32))
    centre = random.randrange(width)
    for _ in range(260):
        x = int(centre + rng.normal(0, 0.12 * width))
        y = int(height - abs(rng.normal(0, 0.35 * height)))
        green = (
            (238, 242, 246)
            if rng.random() < 0.4 and front.is_snow
            else colour_of(0.28, 0.6, rng.uniform(0.2, 0.5))
        )
        draw.ellipse((x, y, x + 7, y + 6), fill=green)


def _draw_upright_sign(front: Front, ground: int) -> None:
    random, draw = front.random, front.draw
    width, height = front.image.size
    x, tall = random.choice((8, width - 22)), random.randint(50, 90)
    y = max(10, height - ground - tall - 6)
    back = colour_of(random.random(), 0.8, 0.7)
    draw.rectangle((x, y, x + 14, y + tall), fill=back, outline=(30, 30, 30))
    for step in range(y + 5, y + tall - 8, 11):
        front.image.paste(
            (250, 248, 240), (x + 3, step), draw_word(random.choice("ABDEGHKMNRSTX")).resize((9, 9))
        )
    if front.is_night:
        front.shine.rectangle((x, y, x + 14, y + tall), fill=GLOWING)


def _draw_fence(random: Random, width: int, height: int) -> Image.Image:
    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    tone = random.choice(((60, 62, 60, 255), (120, 86, 56, 255), (200, 198, 190, 255), (44, 80, 52, 255)))
    step, bar = random.choice(((7, 2), (9, 6), (12, 10)))
    for x in range(0, width, step):
        draw.rectangle((x, 0 if x % (3 * step) == 0 else 4, x + bar, height), fill=tone)
    draw.rectangle((0, 8, width, 10), fill=tone)
    draw.rectangle((0, height - 8, width, height), fill=(128, 122, 112, 255))
    return image
