"""Textures of the procedural city: facades, roofs, walls, trees, cars and people, drawn flat.

Facades are RGBA at `PX_PER_M`. Their alpha carries two things: 0 is a hole, 255 a surface that only reflects,
and values down to `GLOWING` a surface that shines by itself (lit windows and signs at night).
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipelines.demo.plan import STYLES, Building, Style

__all__ = ["GLOWING", "PX_PER_M", "draw_facade", "draw_roof", "draw_wall", "noise_tile"]

PX_PER_M = 20
GLOWING = 160
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


def _noise(random: Random, width: int, height: int) -> NDArray[np.float32]:
    rows = (np.arange(height) + random.randrange(NOISE_PX)) % NOISE_PX
    columns = (np.arange(width) + random.randrange(NOISE_PX)) % NOISE_PX
    return noise_tile()[rows[:, None], columns[None, :]]


def _colour(hue: float, saturation: float, value: float) -> Colour:
    saturation, value = min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0)
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return int(255 * r), int(255 * g), int(255 * b)


def _scaled(colour: Colour, factor: float) -> Colour:
    r, g, b = (min(255, int(factor * c)) for c in colour)
    return r, g, b


def _wall_pixels(random: Random, material: str, colour: Colour, width: int, height: int) -> Image.Image:
    """Draw bare wall of brick, stone, panels or plaster."""
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    bright = 1.0 + np.float32(0.05) * _noise(random, width, height)
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
    bright += np.float32(0.05) * _noise(random, width, 1) * fade
    bright -= (0.16 * np.exp((y - height) / 14.0)).astype(np.float32)
    pixels = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        pixels[..., channel] = np.clip(bright * np.float32(colour[channel]), 0, 255)
    return Image.fromarray(pixels)


@dataclass
class _Front:
    """A facade being drawn: pixels, glow, and the choices its parts share."""

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
    colour = _colour(hue, saturation, value)
    image = _wall_pixels(random, random.choice(style.materials), colour, width, height)
    glow = Image.new("L", image.size, 255)
    trim = random.choice(((232, 228, 218), _scaled(colour, 1.25), _scaled(colour, 0.6), (120, 110, 100)))
    front = _Front(
        *(image, glow, ImageDraw.Draw(image), ImageDraw.Draw(glow), random, mood, style, colour, trim),
        *(light == "night", light == "snow"),
    )
    ground = round(3.9 * PX_PER_M)
    _draw_floors(front, building, ground)
    _draw_ground_floor(front, height - ground)
    _draw_extras(front, ground)
    image.putalpha(glow)
    return image


def _draw_floors(front: _Front, building: Building, ground: int) -> None:
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
    pane = _Pane(front, window_w, window_h)
    has_course = random.random() < 0.5
    for floor in range(building.floors - 1):
        y = round(top + floor * floor_px + 0.45 * (floor_px - window_h))
        if has_course:
            edge = round(top + (floor + 1) * floor_px)
            draw.rectangle((0, edge - 4, width, edge), fill=front.trim)
            draw.line((0, edge + 1, width, edge + 1), fill=_scaled(front.colour, 0.55))
        for bay in range(bays):
            x = round((bay + 0.5) * width / bays - window_w / 2)
            if pair:
                x += round(0.16 * width / bays) * (1 if bay % 2 == 0 else -1)
            if random.random() < 0.03:
                continue
            pane.draw(x, y)
    _draw_cornice(front, top)


def _draw_cornice(front: _Front, top: int) -> None:
    random, draw, width = front.random, front.draw, front.image.width
    depth = max(4, round(top * random.uniform(0.4, 0.8)))
    draw.rectangle((0, 0, width, depth), fill=front.trim)
    draw.rectangle((0, depth, width, depth + 2), fill=_scaled(front.trim, 0.5))
    if random.random() < 0.5:
        step = random.choice((8, 11, 16))
        for x in range(0, width, step):
            draw.rectangle((x, depth - 4, x + step // 2, depth), fill=_scaled(front.trim, 0.65))
    if front.is_snow:
        draw.rectangle((0, 0, width, 3), fill=(240, 243, 248))


class _Pane:
    """A building's kind of window: one frame, many moods."""

    def __init__(self, front: _Front, width: int, height: int) -> None:
        random = front.random
        self.front, self.width, self.height = front, width, height
        self.frame = random.choice(
            ((238, 236, 230), (70, 60, 52), (120, 76, 44), (52, 66, 60), (200, 190, 170))
        )
        self.bars = random.choice(((1, 0), (1, 1), (0, 1), (2, 1), (1, 2), (2, 3), (0, 0)))
        self.head = random.choice(("none", "lintel", "arch", "pediment", "surround"))
        self.shutter = (
            _colour(random.random(), random.uniform(0.2, 0.6), random.uniform(0.25, 0.6))
            if random.random() < front.style.shutters
            else None
        )
        self.balcony = (
            random.choice(("rail", "slab", "box")) if random.random() < front.style.balconies else None
        )
        self.balcony_colour = random.choice(((40, 40, 44), (90, 92, 96), (180, 172, 160), (60, 80, 70)))
        self.balcony_every = random.choice((1, 2, 2, 3))
        self.flowers = random.random() < 0.2
        self.count = 0

    def draw(self, x: int, y: int) -> None:
        """Draw one window with its upper left corner at (x, y)."""
        front, draw = self.front, self.front.draw
        w, h = self.width, self.height
        self.count += 1
        self._draw_surround(x, y)
        draw.rectangle((x - 2, y - 2, x + w + 1, y + h + 1), fill=self.frame)
        self._draw_glass(x, y)
        for bar in range(1, self.bars[0] + 1):
            bx = x + round(bar * w / (self.bars[0] + 1))
            draw.line((bx, y, bx, y + h), fill=self.frame, width=2)
        for bar in range(1, self.bars[1] + 1):
            by = y + round((0.3 if self.bars[1] == 1 else bar / (self.bars[1] + 1)) * h)
            draw.line((x, by, x + w, by), fill=self.frame, width=2)
        sill = (242, 245, 250) if front.is_snow else front.trim
        draw.rectangle((x - 4, y + h + 1, x + w + 3, y + h + 4), fill=sill)
        draw.line((x - 4, y + h + 5, x + w + 3, y + h + 5), fill=_scaled(front.colour, 0.5))
        if self.shutter is not None:
            self._draw_shutters(x, y, self.shutter)
        if self.balcony is not None and self.count % self.balcony_every == 0:
            self._draw_balcony(x, y)
        elif self.flowers:
            for dot in range(x - 3, x + w + 3, 3):
                tint = front.random.choice(((190, 40, 60), (60, 110, 40), (220, 90, 120), (70, 120, 50)))
                draw.ellipse((dot, y + h - 4, dot + 4, y + h + 1), fill=tint)

    def _draw_surround(self, x: int, y: int) -> None:
        draw, trim, w, h = self.front.draw, self.front.trim, self.width, self.height
        if self.head == "lintel":
            draw.rectangle((x - 5, y - 8, x + w + 4, y - 2), fill=trim)
        elif self.head == "arch":
            draw.pieslice((x - 3, y - w // 3, x + w + 2, y + w // 3), 180, 360, fill=trim)
        elif self.head == "pediment":
            draw.polygon(((x - 6, y - 5), (x + w // 2, y - 14), (x + w + 6, y - 5)), fill=trim)
            draw.line((x - 6, y - 4, x + w + 6, y - 4), fill=_scaled(trim, 0.6))
        elif self.head == "surround":
            draw.rectangle((x - 6, y - 6, x + w + 5, y + h + 5), fill=trim)

    def _draw_glass(self, x: int, y: int) -> None:
        front, w, h = self.front, self.width, self.height
        mood, draw = front.mood, front.draw
        box = (x, y, x + w - 1, y + h - 1)
        base = front.random.uniform(0.18, 0.34)
        if front.is_night and mood.random() < 0.2:
            warm = mood.choice(((255, 206, 120), (255, 224, 160), (240, 180, 96), (226, 232, 240)))
            draw.rectangle(box, fill=_scaled(warm, mood.uniform(0.7, 1.0)))
            front.shine.rectangle(box, fill=GLOWING)
        else:
            draw.rectangle(box, fill=_colour(0.57, 0.25, base))
            draw.polygon(
                ((x, y + h - 1), (x, y + h // 2), (x + w - 1, y), (x + w - 1, y + h // 3)),
                fill=_colour(0.57, 0.2, base + 0.12),
            )
        drawn = mood.random()
        curtain = front.random.choice(((214, 206, 190), (190, 186, 180), (160, 140, 120), (222, 216, 206)))
        if drawn < 0.25:
            fall = round(mood.uniform(0.2, 0.9) * h)
            draw.rectangle((x, y, x + w - 1, y + fall), fill=curtain)
        elif drawn < 0.5:
            draw.rectangle((x, y, x + w // 5, y + h - 1), fill=curtain)
            draw.rectangle((x + w - 1 - w // 5, y, x + w - 1, y + h - 1), fill=curtain)

    def _draw_shutters(self, x: int, y: int, colour: Colour) -> None:
        draw, w, h = self.front.draw, self.width, self.height
        leaf = max(5, round(0.38 * w))
        for left in (x - 3 - leaf, x + w + 2):
            draw.rectangle((left, y - 1, left + leaf, y + h), fill=colour)
            for slat in range(y + 3, y + h - 1, 4):
                draw.line((left + 1, slat, left + leaf - 1, slat), fill=_scaled(colour, 0.7))

    def _draw_balcony(self, x: int, y: int) -> None:
        draw, w, h, colour = self.front.draw, self.width, self.height, self.balcony_colour
        left, right, top, floor = x - 10, x + w + 9, y + round(0.5 * h), y + h + 4
        if self.balcony == "box":
            draw.rectangle((left, top, right, floor), fill=colour)
            draw.line((left, top, right, top), fill=_scaled(colour, 1.4), width=2)
        else:
            for bar in range(left, right + 1, 4 if self.balcony == "rail" else 6):
                draw.line((bar, top, bar, floor), fill=colour)
            draw.line((left, top, right, top), fill=colour, width=2)
        draw.rectangle((left - 2, floor, right + 2, floor + 4), fill=_scaled(self.front.colour, 0.75))
        draw.rectangle((left, floor + 5, right, floor + 9), fill=_scaled(self.front.colour, 0.5))


def _draw_ground_floor(front: _Front, top: int) -> None:
    random, draw = front.random, front.draw
    width, height = front.image.size
    if random.random() < 0.4:
        tone = _scaled(front.colour, random.choice((0.6, 0.75, 1.2)))
        draw.rectangle((0, top, width, height), fill=tone)
        for joint in range(top + 12, height, random.choice((12, 16))):
            draw.line((0, joint, width, joint), fill=_scaled(tone, 0.7))
    draw.rectangle((0, height - 10, width, height), fill=_scaled(front.colour, 0.5))
    door_w = random.randint(22, 32)
    door_x = random.choice((10, width - door_w - 10, (width - door_w) // 2))
    if random.random() < front.style.shops:
        if door_x == (width - door_w) // 2:
            door_x = 10
        left, right = (door_x + door_w + 8, width - 8) if door_x < width // 2 else (8, door_x - 8)
        _draw_shop(front, left, right, top)
    else:
        pane = _Pane(front, random.randint(20, 34), random.randint(26, 36))
        pane.balcony = None
        count = max(1, round(width / (pane.width * random.uniform(1.9, 2.6))))
        for bay in range(count):
            x = round((bay + 0.5) * width / count - pane.width / 2)
            if x + pane.width + 8 < door_x or x > door_x + door_w + 8:
                pane.draw(x, top + 20)
    _draw_door(front, door_x, door_w, top)


def _draw_door(front: _Front, x: int, width: int, top: int) -> None:
    random, draw, height = front.random, front.draw, front.image.height
    colour = _colour(random.random(), random.uniform(0.3, 0.75), random.uniform(0.2, 0.55))
    y = height - random.randint(44, 52)
    draw.rectangle((x - 4, y - 4, x + width + 3, height), fill=front.trim)
    draw.rectangle((x, y, x + width - 1, height), fill=colour)
    if random.random() < 0.5:
        glass = (255, 214, 140) if front.is_night else (60, 70, 80)
        draw.rectangle((x, y, x + width - 1, y + 9), fill=glass)
        front.shine.rectangle((x, y, x + width - 1, y + 9), fill=GLOWING if front.is_night else 255)
    rows = random.choice((2, 3))
    for row in range(rows):
        for half in range(2):
            px, py = x + 3 + half * width // 2, y + 13 + row * 34 // rows
            draw.rectangle((px, py, px + width // 2 - 6, py + 34 // rows - 4), outline=_scaled(colour, 0.6))
    draw.rectangle((x - 4, height - 3, x + width + 3, height), fill=(140, 136, 130))


def _draw_shop(front: _Front, left: int, right: int, top: int) -> None:
    random, draw, height = front.random, front.draw, front.image.height
    if right - left < 40:
        return
    frame = _colour(random.random(), random.uniform(0.2, 0.9), random.uniform(0.15, 0.7))
    draw.rectangle((left, top + 4, right, height), fill=frame)
    sign_h = random.randint(14, 20)
    glass_top = top + sign_h + random.choice((8, 12, 18))
    panes = random.randint(2, 4)
    for pane in range(panes):
        x0 = left + 4 + pane * (right - left - 4) // panes
        x1 = left + (pane + 1) * (right - left - 4) // panes
        glass = (250, 222, 170) if front.is_night else (66, 74, 82)
        draw.rectangle((x0, glass_top, x1, height - 12), fill=glass)
        if front.is_night:
            front.shine.rectangle((x0, glass_top, x1, height - 12), fill=GLOWING)
        for _ in range(random.randint(2, 6)):
            gx, gw, gh = random.randint(x0, x1), random.randint(4, 12), random.randint(5, 22)
            goods = _colour(random.random(), random.uniform(0.2, 0.9), random.uniform(0.3, 0.9))
            draw.rectangle((gx, height - 13 - gh, min(gx + gw, x1), height - 13), fill=goods)
    if random.random() < 0.45:
        stripe = _colour(random.random(), 0.7, 0.7)
        for number, x in enumerate(range(left, right, 7)):
            shade = stripe if number % 2 else (236, 232, 222)
            draw.polygon(
                ((x + 1, glass_top - 8), (x + 8, glass_top - 8), (x + 7, glass_top + 8), (x, glass_top + 8)),
                fill=shade,
            )
    _draw_sign(front, (left + 2, top + 6, right - 2, top + 6 + sign_h))


def _draw_sign(front: _Front, box: tuple[int, int, int, int]) -> None:
    random = front.random
    back = _colour(random.random(), random.uniform(0.1, 0.95), random.uniform(0.1, 0.95))
    ink = (245, 240, 225) if sum(back) < 380 else _colour(random.random(), 0.8, 0.25)
    front.draw.rectangle(box, fill=back, outline=_scaled(back, 0.6))
    if random.random() < 0.7 and front.is_night:
        front.shine.rectangle(box, fill=GLOWING + 30)
    word = "".join(
        random.choice("BDFGKLMNPRSTVZ") + random.choice("AEIOU") for _ in range(random.randint(2, 4))
    )
    left, top, right, bottom = box
    letters = _word(word)
    height = bottom - top - 3
    width = min(round(letters.width * height / letters.height), right - left - 4)
    mask = letters.resize((max(width, 1), height), Image.Resampling.BILINEAR)
    at = left + 2 + round((right - left - 4 - width) * random.choice((0.0, 0.5, 1.0)))
    front.image.paste(ink, (at, top + 2), mask)


def _word(word: str) -> Image.Image:
    """Draw a word with Pillow's built-in bitmap font, which is the same everywhere."""
    font = ImageFont.load_default_imagefont()
    left, top, right, bottom = font.getbbox(word)
    image = Image.new("L", (int(right - left), int(bottom - top)), 0)
    ImageDraw.Draw(image).text((-left, -top), word, fill=255, font=font)
    box = image.getbbox()
    return image.crop(box) if box else image


def _draw_extras(front: _Front, ground: int) -> None:
    """Add what a building collects over the years: pipes, boxes, ivy, murals, upright signs."""
    random, draw = front.random, front.draw
    width, height = front.image.size
    if random.random() < 0.6:
        x, tone = (
            random.choice((3, width - 6)),
            random.choice(((70, 70, 72), (150, 110, 80), (170, 174, 170))),
        )
        draw.rectangle((x, 6, x + 2, height), fill=tone)
    for _ in range(random.choice((0, 0, 1, 2, 4))):
        x, y = random.randint(4, width - 22), random.randint(20, max(21, height - ground))
        draw.rectangle((x, y, x + 14, y + 10), fill=(208, 208, 204), outline=(120, 120, 118))
        draw.ellipse((x + 2, y + 2, x + 8, y + 8), fill=(90, 90, 92))
    if random.random() < 0.1:
        rng = np.random.default_rng(random.getrandbits(32))
        centre = random.randrange(width)
        for _ in range(260):
            x = int(centre + rng.normal(0, 0.12 * width))
            y = int(height - abs(rng.normal(0, 0.35 * height)))
            green = (
                (238, 242, 246)
                if rng.random() < 0.4 and front.is_snow
                else _colour(0.28, 0.6, rng.uniform(0.2, 0.5))
            )
            draw.ellipse((x, y, x + 7, y + 6), fill=green)
    if random.random() < 0.15:
        x, tall = random.choice((8, width - 22)), random.randint(50, 90)
        y = max(10, height - ground - tall - 6)
        back = _colour(random.random(), 0.8, 0.7)
        draw.rectangle((x, y, x + 14, y + tall), fill=back, outline=(30, 30, 30))
        for step in range(y + 5, y + tall - 8, 11):
            front.image.paste(
                (250, 248, 240), (x + 3, step), _word(random.choice("ABDEGHKMNRSTX")).resize((9, 9))
            )
        if front.is_night:
            front.shine.rectangle((x, y, x + 14, y + tall), fill=GLOWING)
    if random.random() < 0.12:
        x, y = random.randint(0, width // 2), height - random.randint(26, 40)
        for _ in range(5):
            tint = _colour(random.random(), 0.8, 0.8)
            points = [(x + random.randint(0, 60), y + random.randint(0, 22)) for _ in range(5)]
            draw.line(points, fill=tint, width=2, joint="curve")


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
        + 0.06 * _noise(random, width, height)
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
    colour = _colour(style.hue, 0.5 * style.saturation, 0.8 * style.value)
    image = _wall_pixels(random, random.choice(("brick", "plaster")), colour, width, height)
    alpha = Image.new("L", image.size, 255)
    eave = round(building.roof_m * PX_PER_M / 2)
    if eave:
        cut = ImageDraw.Draw(alpha)
        cut.polygon(((0, 0), (width // 2, 0), (0, eave)), fill=0)
        cut.polygon(((width, 0), (width // 2, 0), (width, eave)), fill=0)
    image.putalpha(alpha)
    return image
