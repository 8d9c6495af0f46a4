"""The plan of the procedural city: streets, lots, buildings and what stands on the pavement.

Everything follows from the seed and is computed where a camera looks, so a city of 500 km opens as fast as
one street. World axes: x east, y north, z up, in metres from the city's corner.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random

__all__ = ["STYLES", "Building", "City", "Item", "Place", "Row", "Style", "plan_city", "plan_row"]

PLACE_STEP_M = 10.0
KERB_M = 3.2
# Streets beyond the driven ones, so that no view ends in an empty plain.
MARGIN_LINES = 2


@dataclass(frozen=True)
class Style:
    """Properties shared by the buildings of a street.

    Attributes:
        hue: Mean hue of the walls, 0..1.
        saturation: Mean saturation of the walls, 0..1.
        value: Mean brightness of the walls, 0..1.
        materials: Wall materials to choose from.
        floors: Lowest and highest number of floors.
        floor_m: Height of a floor.
        window_m: Mean width and height of a window.
        shutters: Share of buildings with shutters.
        balconies: Share of buildings with balconies.
        shops: Share of buildings with a shop front.
        pitched: Share of buildings with a pitched roof.
    """

    hue: float
    saturation: float
    value: float
    materials: tuple[str, ...]
    floors: tuple[int, int]
    floor_m: float
    window_m: tuple[float, float]
    shutters: float
    balconies: float
    shops: float
    pitched: float


STYLES = (
    Style(0.03, 0.50, 0.58, ("brick", "brick", "plaster"), (2, 4), 3.0, (1.2, 1.7), 0.3, 0.3, 0.5, 0.6),
    Style(0.11, 0.30, 0.82, ("plaster", "plaster", "stone"), (3, 5), 3.2, (1.1, 1.9), 0.6, 0.5, 0.5, 0.6),
    Style(0.09, 0.12, 0.68, ("stone", "plaster", "stone"), (3, 5), 3.5, (1.3, 2.1), 0.2, 0.4, 0.6, 0.4),
    Style(0.58, 0.10, 0.72, ("panel", "plaster", "brick"), (3, 6), 2.9, (1.7, 1.4), 0.1, 0.6, 0.4, 0.1),
    Style(0.08, 0.55, 0.80, ("plaster", "plaster", "brick"), (2, 4), 3.1, (1.0, 1.5), 0.7, 0.4, 0.4, 0.7),
    Style(0.40, 0.14, 0.76, ("plaster", "panel", "stone"), (2, 5), 3.3, (1.5, 1.8), 0.3, 0.5, 0.6, 0.3),
)


@dataclass(frozen=True)
class Building:
    """One lot of a row.

    Attributes:
        key: Seed of its individual looks.
        start_m: Where its front begins along the street.
        width_m: Length of its front.
        height_m: Height of the eaves; a fence's height where `is_gap`.
        floors: Number of floors, the ground floor included.
        roof_m: Height of the roof above the eaves; 0 for a flat one.
        style: Index into `STYLES`.
        is_gap: An open lot with fence and trees instead of a house.
    """

    key: int
    start_m: float
    width_m: float
    height_m: float
    floors: int
    roof_m: float
    style: int
    is_gap: bool


@dataclass(frozen=True)
class Item:
    """A thing standing in the street.

    Attributes:
        kind: `tree`, `lamp`, `car`, `van` or `person`.
        along_m: Position along the street.
        across_m: Distance from the street's middle, towards the item's side.
        key: Seed of its looks.
    """

    kind: str
    along_m: float
    across_m: float
    key: int


@dataclass(frozen=True)
class Row:
    """One side of one street between two crossings.

    Attributes:
        axis: 0 for a street running east, 1 for one running north.
        line: Index of the street among those of its axis.
        segment: Index of the crossing it starts from.
        side: 1 left of the direction of the street, -1 right.
        middle_m: The street's position across its direction.
        half_width_m: From the street's middle to the facades.
        buildings: The lots, in order along the street.
        items: Trees and lamps, the same at every moment.
    """

    axis: int
    line: int
    segment: int
    side: int
    middle_m: float
    half_width_m: float
    buildings: tuple[Building, ...]
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Place:
    """A point of the camera's drive.

    Attributes:
        axis: 0 on a street running east, 1 on one running north.
        line: Index of the street.
        along_m: Position along the street.
        x_m: East of the city's corner.
        y_m: North of the city's corner.
    """

    axis: int
    line: int
    along_m: float
    x_m: float
    y_m: float


@dataclass(frozen=True)
class City:
    """A grid of streets.

    Attributes:
        seed: Everything in the city follows from it.
        lines_m: For each axis the positions of its streets, across their direction.
        half_widths_m: For each axis the half widths of its streets.
    """

    seed: int
    lines_m: tuple[tuple[float, ...], tuple[float, ...]]
    half_widths_m: tuple[tuple[float, ...], tuple[float, ...]]

    def __hash__(self) -> int:
        """Hash cheaply, by seed and size: cities are cache keys."""
        return hash((self.seed, len(self.lines_m[0])))

    @property
    def drive_m(self) -> float:
        """Length of all driven streets."""
        return sum(self.span_m(axis)[1] - self.span_m(axis)[0] for axis, _ in self.streets())

    def streets(self) -> Iterator[tuple[int, int]]:
        """Yield (axis, line) of the driven streets, the two directions in turn."""
        for line in range(MARGIN_LINES, len(self.lines_m[0]) - MARGIN_LINES):
            yield 0, line
            yield 1, line

    def span_m(self, axis: int) -> tuple[float, float]:
        """Return where driven streets of this axis begin and end."""
        across = self.lines_m[1 - axis]
        return across[MARGIN_LINES], across[-1 - MARGIN_LINES]

    def places(self) -> Iterator[Place]:
        """Yield the places of the drive, every 10 m, street after street."""
        for axis, line in self.streets():
            start, end = self.span_m(axis)
            middle = self.lines_m[axis][line]
            for step in range(int((end - start) / PLACE_STEP_M)):
                along = start + (step + 0.5) * PLACE_STEP_M
                x, y = (along, middle) if axis == 0 else (middle, along)
                yield Place(axis, line, along, x, y)


def plan_city(*, seed: int, places: int) -> City:
    """Plan the smallest square city with room for `places` places."""
    for driven in range(2, 1_000):
        count = driven + 2 * MARGIN_LINES
        city = City(
            seed,
            (_line_positions(seed, 0, count), _line_positions(seed, 1, count)),
            (_half_widths(seed, 0, count), _half_widths(seed, 1, count)),
        )
        if (
            sum(int((city.span_m(a)[1] - city.span_m(a)[0]) / PLACE_STEP_M) for a, _ in city.streets())
            >= places
        ):
            return city
    raise AssertionError("callers bound the number of places")


def _random(*parts: object) -> Random:
    """Return a generator seeded by the parts; seeding by text is stable between runs and machines."""
    return Random("/".join(map(str, parts)))


def _line_positions(seed: int, axis: int, count: int) -> tuple[float, ...]:
    random, position, positions = _random(seed, "lines", axis), 0.0, []
    for _ in range(count):
        positions.append(position)
        position += random.uniform(62.0, 128.0)
    return tuple(positions)


def _half_widths(seed: int, axis: int, count: int) -> tuple[float, ...]:
    random = _random(seed, "widths", axis)
    return tuple(random.uniform(9.5, 12.5) for _ in range(count))


@lru_cache(maxsize=4096)
def plan_row(city: City, axis: int, line: int, segment: int, side: int) -> Row:
    """Fill one side of a street between crossings `segment` and `segment` + 1."""
    across, widths = city.lines_m[1 - axis], city.half_widths_m[1 - axis]
    start, end = across[segment] + widths[segment], across[segment + 1] - widths[segment + 1]
    random = _random(city.seed, "row", axis, line, segment, side)
    street = _random(city.seed, "street", axis, line)
    style = street.randrange(len(STYLES))
    tree_share, half_width = street.choice((0.0, 0.15, 0.35)), city.half_widths_m[axis][line]
    buildings = []
    position = start
    while position < end - 1.0:
        building = _plan_building(random, position, end, style)
        buildings.append(building)
        position += building.width_m
    items = []
    kerb = half_width - KERB_M
    for step in range(int((end - start) / 9.0)):
        along = start + 4.0 + 9.0 * step
        if step % 3 == (1 if side > 0 else 2):
            items.append(Item("lamp", along, kerb + 0.5, 0))
        elif random.random() < tree_share:
            items.append(Item("tree", along + random.uniform(-1, 1), kerb + 0.9, random.randrange(24)))
    middle = city.lines_m[axis][line]
    return Row(axis, line, segment, side, middle, half_width, tuple(buildings), tuple(items))


def _plan_building(random: Random, position: float, end: float, street_style: int) -> Building:
    width = random.uniform(7.0, 15.0)
    if end - position - width < 6.0:
        width = end - position
    # One building in five differs from the style of its street.
    style = street_style if random.random() > 0.2 else random.randrange(len(STYLES))
    is_gap = random.random() < 0.06 and width < 16.0
    looks = STYLES[style]
    floors = random.randint(*looks.floors)
    height = 3.9 + (floors - 1) * (looks.floor_m + random.uniform(-0.15, 0.25)) + 0.7
    roof = random.uniform(2.0, 3.6) if random.random() < looks.pitched else 0.0
    if is_gap:
        height, roof = random.uniform(1.2, 2.0), 0.0
    return Building(random.getrandbits(48), position, width, height, floors, roof, style, is_gap)
