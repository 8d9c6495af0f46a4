"""Buildings of the procedural city: their styles, and one after the other along a street."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

__all__ = ["STYLES", "Building", "Style", "plan_building", "plan_repeating"]

# Of the hard city: kinds of houses in all of it, orders in which they stand, and the share of lots that keep
# to their order; the others have a house of their own.
HOUSE_TYPES, ORDERS, ORDER_LENGTH = 32, 10, 5
REPEATED_SHARE = 0.6


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


def plan_building(random: Random, position: float, end: float, street_style: int) -> Building:
    """Plan the next lot of a row that ends at `end`."""
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


def plan_repeating(seed: int, random: Random, start: float, end: float) -> list[Building]:
    """Plan a row of the hard city, whose houses and their orders are found all over it.

    Args:
        seed: Of the city.
        random: Of the row.
        start: Where the row begins along the street.
        end: Where it ends.
    """
    types, orders = _house_types(seed)
    order = random.choice(orders)
    at = random.randrange(len(order))
    buildings: list[Building] = []
    position = start
    while position < end - 1.0:
        if random.random() < REPEATED_SHARE:
            house = types[order[at % len(order)]]
            width = house.width_m if end - position - house.width_m >= 6.0 else end - position
            house = replace(house, start_m=position, width_m=width)
        else:
            house = plan_building(random, position, end, random.randrange(len(STYLES)))
        buildings.append(house)
        position += house.width_m
        at += 1
    return buildings


@lru_cache(maxsize=16)
def _house_types(seed: int) -> tuple[tuple[Building, ...], tuple[tuple[int, ...], ...]]:
    """Return the kinds of houses of a hard city, and the orders in which they stand."""
    random = Random(f"{seed}/types")
    types: list[Building] = []
    while len(types) < HOUSE_TYPES:
        house = plan_building(random, 0.0, 100.0, random.randrange(len(STYLES)))
        if not house.is_gap:
            types.append(house)
    orders = tuple(tuple(random.randrange(HOUSE_TYPES) for _ in range(ORDER_LENGTH)) for _ in range(ORDERS))
    return tuple(types), orders
