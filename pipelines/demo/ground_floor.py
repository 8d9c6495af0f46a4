"""Ground floors of facades: doors, windows, shop fronts and their signs."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from pipelines.demo.front import GLOWING, Front
from pipelines.demo.materials import colour_of, scaled
from pipelines.demo.window import Window

__all__ = ["draw_ground_floor", "draw_word"]


def draw_ground_floor(front: Front, top: int) -> None:
    """Draw everything below row `top`: a door, and beside it windows or a shop front."""
    random, draw = front.random, front.draw
    width, height = front.image.size
    if random.random() < 0.4:
        tone = scaled(front.colour, random.choice((0.6, 0.75, 1.2)))
        draw.rectangle((0, top, width, height), fill=tone)
        for joint in range(top + 12, height, random.choice((12, 16))):
            draw.line((0, joint, width, joint), fill=scaled(tone, 0.7))
    draw.rectangle((0, height - 10, width, height), fill=scaled(front.colour, 0.5))
    door_w = random.randint(22, 32)
    door_x = random.choice((10, width - door_w - 10, (width - door_w) // 2))
    if random.random() < front.style.shops:
        if door_x == (width - door_w) // 2:
            door_x = 10
        left, right = (door_x + door_w + 8, width - 8) if door_x < width // 2 else (8, door_x - 8)
        _draw_shop(front, left, right, top)
    else:
        pane = Window(front, random.randint(20, 34), random.randint(26, 36))
        pane.balcony = None
        count = max(1, round(width / (pane.width * random.uniform(1.9, 2.6))))
        for bay in range(count):
            x = round((bay + 0.5) * width / count - pane.width / 2)
            if x + pane.width + 8 < door_x or x > door_x + door_w + 8:
                pane.draw(x, top + 20)
    _draw_door(front, door_x, door_w, top)


def _draw_door(front: Front, x: int, width: int, top: int) -> None:
    random, draw, height = front.random, front.draw, front.image.height
    colour = colour_of(random.random(), random.uniform(0.3, 0.75), random.uniform(0.2, 0.55))
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
            draw.rectangle((px, py, px + width // 2 - 6, py + 34 // rows - 4), outline=scaled(colour, 0.6))
    draw.rectangle((x - 4, height - 3, x + width + 3, height), fill=(140, 136, 130))


def _draw_shop(front: Front, left: int, right: int, top: int) -> None:
    random, draw, height = front.random, front.draw, front.image.height
    if right - left < 40:
        return
    frame = colour_of(random.random(), random.uniform(0.2, 0.9), random.uniform(0.15, 0.7))
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
            goods = colour_of(random.random(), random.uniform(0.2, 0.9), random.uniform(0.3, 0.9))
            draw.rectangle((gx, height - 13 - gh, min(gx + gw, x1), height - 13), fill=goods)
    if random.random() < 0.45:
        stripe = colour_of(random.random(), 0.7, 0.7)
        for number, x in enumerate(range(left, right, 7)):
            shade = stripe if number % 2 else (236, 232, 222)
            draw.polygon(
                ((x + 1, glass_top - 8), (x + 8, glass_top - 8), (x + 7, glass_top + 8), (x, glass_top + 8)),
                fill=shade,
            )
    _draw_sign(front, (left + 2, top + 6, right - 2, top + 6 + sign_h))


def _draw_sign(front: Front, box: tuple[int, int, int, int]) -> None:
    random = front.random
    back = colour_of(random.random(), random.uniform(0.1, 0.95), random.uniform(0.1, 0.95))
    ink = (245, 240, 225) if sum(back) < 380 else colour_of(random.random(), 0.8, 0.25)
    front.draw.rectangle(box, fill=back, outline=scaled(back, 0.6))
    if random.random() < 0.7 and front.is_night:
        front.shine.rectangle(box, fill=GLOWING + 30)
    word = "".join(
        random.choice("BDFGKLMNPRSTVZ") + random.choice("AEIOU") for _ in range(random.randint(2, 4))
    )
    left, top, right, bottom = box
    letters = draw_word(word)
    height = bottom - top - 3
    width = min(round(letters.width * height / letters.height), right - left - 4)
    mask = letters.resize((max(width, 1), height), Image.Resampling.BILINEAR)
    at = left + 2 + round((right - left - 4 - width) * random.choice((0.0, 0.5, 1.0)))
    front.image.paste(ink, (at, top + 2), mask)


def draw_word(word: str) -> Image.Image:
    """Draw a word with Pillow's built-in bitmap font, which is the same everywhere."""
    font = ImageFont.load_default_imagefont()
    left, top, right, bottom = font.getbbox(word)
    image = Image.new("L", (int(right - left), int(bottom - top)), 0)
    ImageDraw.Draw(image).text((-left, -top), word, fill=255, font=font)
    box = image.getbbox()
    return image.crop(box) if box else image
