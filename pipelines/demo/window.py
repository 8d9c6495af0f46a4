"""Windows of a facade: frame, glass, shutters, balcony and flowers."""

from __future__ import annotations

from pipelines.demo.front import GLOWING, Front
from pipelines.demo.materials import Colour, colour_of, scaled

__all__ = ["Window"]


class Window:
    """The kind of window of one building: the frame is shared, glass and curtains differ."""

    def __init__(self, front: Front, width: int, height: int) -> None:
        random = front.random
        self.front, self.width, self.height = front, width, height
        self.frame = random.choice(
            ((238, 236, 230), (70, 60, 52), (120, 76, 44), (52, 66, 60), (200, 190, 170))
        )
        self.bars = random.choice(((1, 0), (1, 1), (0, 1), (2, 1), (1, 2), (2, 3), (0, 0)))
        self.head = random.choice(("none", "lintel", "arch", "pediment", "surround"))
        self.shutter = (
            colour_of(random.random(), random.uniform(0.2, 0.6), random.uniform(0.25, 0.6))
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
        draw.line((x - 4, y + h + 5, x + w + 3, y + h + 5), fill=scaled(front.colour, 0.5))
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
            draw.line((x - 6, y - 4, x + w + 6, y - 4), fill=scaled(trim, 0.6))
        elif self.head == "surround":
            draw.rectangle((x - 6, y - 6, x + w + 5, y + h + 5), fill=trim)

    def _draw_glass(self, x: int, y: int) -> None:
        front, w, h = self.front, self.width, self.height
        mood, draw = front.mood, front.draw
        box = (x, y, x + w - 1, y + h - 1)
        base = front.random.uniform(0.18, 0.34)
        if front.is_night and mood.random() < 0.2:
            warm = mood.choice(((255, 206, 120), (255, 224, 160), (240, 180, 96), (226, 232, 240)))
            draw.rectangle(box, fill=scaled(warm, mood.uniform(0.7, 1.0)))
            front.shine.rectangle(box, fill=GLOWING)
        else:
            draw.rectangle(box, fill=colour_of(0.57, 0.25, base))
            draw.polygon(
                ((x, y + h - 1), (x, y + h // 2), (x + w - 1, y), (x + w - 1, y + h // 3)),
                fill=colour_of(0.57, 0.2, base + 0.12),
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
                draw.line((left + 1, slat, left + leaf - 1, slat), fill=scaled(colour, 0.7))

    def _draw_balcony(self, x: int, y: int) -> None:
        draw, w, h, colour = self.front.draw, self.width, self.height, self.balcony_colour
        left, right, top, floor = x - 10, x + w + 9, y + round(0.5 * h), y + h + 4
        if self.balcony == "box":
            draw.rectangle((left, top, right, floor), fill=colour)
            draw.line((left, top, right, top), fill=scaled(colour, 1.4), width=2)
        else:
            for bar in range(left, right + 1, 4 if self.balcony == "rail" else 6):
                draw.line((bar, top, bar, floor), fill=colour)
            draw.line((left, top, right, top), fill=colour, width=2)
        draw.rectangle((left - 2, floor, right + 2, floor + 4), fill=scaled(self.front.colour, 0.75))
        draw.rectangle((left, floor + 5, right, floor + 9), fill=scaled(self.front.colour, 0.5))
