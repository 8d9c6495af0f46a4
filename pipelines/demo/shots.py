"""The pictures of a drawn city: where each is taken from, in which light, and what its file is called.

The database drives along every street by day and takes one picture of either side every 10 m. Queries stand
a few metres and degrees away, at night, in snow or under clouds, when other cars are parked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from random import Random

import utm

from pipelines.demo.camera import Pose
from pipelines.demo.plan import PLACE_STEP_M, City, Place, plan_city
from storage.errors import PlacerayError

__all__ = ["HARD_CONDITIONS", "QUERY_CONDITIONS", "CityError", "Shot", "check_counts", "plan_shots"]

MIN_IMAGES, MAX_IMAGES = 2, 1_000_000

ORIGIN_E, ORIGIN_N, ZONE, ZONE_LETTER = 601_000.0, 5_339_000.0, 33, "U"
VIEW_DEG = 60.0
QUERY_CONDITIONS = ("night", "snow", "overcast")
HARD_CONDITIONS = ("night", "snow", "rain", "glare")
QUERY_ALONG_M, QUERY_ACROSS_M, QUERY_TURN_DEG = (1.0, 6.0), 1.5, 12.0
HARD_ALONG_M, HARD_ACROSS_M, HARD_TURN_DEG = (1.0, 5.0), 2.0, 60.0
HARD_HEIGHT_M, HARD_PITCH_DEG, HARD_FIELD_OF_VIEW_DEG = (1.2, 4.0), (2.0, 14.0), (60.0, 98.0)
TIMES = {
    "night": "20251108213000",
    "snow": "20260117120000",
    "overcast": "20251003150000",
    "rain": "20251112090000",
    "glare": "20251221150000",
}


class CityError(PlacerayError, ValueError):
    """A city that cannot be drawn as requested; the message ends with the next step to take."""

    reason = "bad_city"


@dataclass(frozen=True)
class Shot:
    """A picture to take.

    Attributes:
        folder: `database` or `queries`.
        name: File name in the field's standard form.
        pose: Where the camera stands, in the city's metres.
        condition: Light and weather.
        moment: Seeds cars, people, clouds and noise.
    """

    folder: str
    name: str
    pose: Pose
    condition: str
    moment: int


def plan_shots(
    *,
    seed: int,
    database_images: int,
    query_images: int,
    hard: bool = False,
    spacing_m: float = PLACE_STEP_M,
) -> tuple[City, list[Shot]]:
    """Plan a city just large enough and every picture to take in it, the database first.

    Args:
        seed: Everything follows from it.
        database_images: Pictures in the database, two per place.
        query_images: Pictures among the queries.
        hard: As of `plan_city`; queries look from other heights, further aside and through other lenses.
        spacing_m: Metres between two places of the database.

    Raises:
        CityError: a number out of range.
    """
    check_counts(seed, database_images, query_images)
    count = (database_images + 1) // 2
    city = plan_city(seed=seed, places=count, hard=hard, spacing_m=spacing_m)
    places = list(islice(city.places(spacing_m), count))
    shots = list(islice(_database_shots(places), database_images))
    # In order along the streets, so that a worker draws each facade once.
    chosen = sorted(
        Random(f"{seed}/queries").sample(range(database_images), min(query_images, database_images))
    )
    chosen += [i % database_images for i in range(query_images - len(chosen))]
    random = Random(f"{seed}/conditions")
    among = HARD_CONDITIONS if hard else QUERY_CONDITIONS
    conditions = [among[i % len(among)] for i in range(query_images)]
    random.shuffle(conditions)
    for number, (index, condition) in enumerate(zip(chosen, conditions, strict=True)):
        take = _hard_query_shot if hard else _query_shot
        shots.append(take(seed, number, places[index // 2], index % 2, condition))
    return city, shots


def check_counts(seed: int, database_images: int, query_images: int) -> None:
    """Refuse numbers that no city is drawn from.

    Raises:
        CityError: a number out of range.
    """
    if seed < 0:
        raise CityError(f"seed {seed} is negative: give 0 or more")
    if not MIN_IMAGES <= database_images <= MAX_IMAGES:
        raise CityError(f"database_images {database_images}: give {MIN_IMAGES} to {MAX_IMAGES}")
    if not 0 <= query_images <= MAX_IMAGES:
        raise CityError(f"query_images {query_images}: give 0 to {MAX_IMAGES}")


def _database_shots(places: list[Place]) -> Iterator[Shot]:
    for number, place in enumerate(places):
        for side in (0, 1):
            pose = Pose(place.x_m, place.y_m, _heading_deg(place, side))
            yield _shot("database", number, side, pose, "day", 0, "20250615110000")


def _query_shot(seed: int, number: int, place: Place, side: int, condition: str) -> Shot:
    random = Random(f"{seed}/query/{number}")
    # Small offsets are more likely than large ones.
    along = random.triangular(*QUERY_ALONG_M, QUERY_ALONG_M[0]) * random.choice((-1, 1))
    across = random.triangular(-QUERY_ACROSS_M, QUERY_ACROSS_M)
    x, y = (along, across) if place.axis == 0 else (across, along)
    turn = random.triangular(-QUERY_TURN_DEG, QUERY_TURN_DEG)
    pose = Pose(
        round(place.x_m + x, 2),
        round(place.y_m + y, 2),
        round((_heading_deg(place, side) + turn) % 360.0, 2),
        round(random.uniform(6.5, 9.5), 2),
        round(random.uniform(1.9, 2.5), 2),
    )
    return _shot("queries", number, side, pose, condition, number + 1, TIMES[condition])


def _hard_query_shot(seed: int, number: int, place: Place, side: int, condition: str) -> Shot:
    random = Random(f"{seed}/hard query/{number}")
    along = random.uniform(*HARD_ALONG_M) * random.choice((-1, 1))
    across = random.uniform(-HARD_ACROSS_M, HARD_ACROSS_M)
    x, y = (along, across) if place.axis == 0 else (across, along)
    pose = Pose(
        round(place.x_m + x, 2),
        round(place.y_m + y, 2),
        round((_heading_deg(place, side) + random.triangular(-HARD_TURN_DEG, HARD_TURN_DEG)) % 360.0, 2),
        round(random.uniform(*HARD_PITCH_DEG), 2),
        round(random.triangular(*HARD_HEIGHT_M, HARD_HEIGHT_M[0] + 1), 2),
        round(random.triangular(*HARD_FIELD_OF_VIEW_DEG), 2),
    )
    return _shot("queries", number, side, pose, condition, number + 1, TIMES[condition])


def _heading_deg(place: Place, side: int) -> float:
    """Return the heading of a view to the left (side 0) or right, 60 degrees from the street's direction."""
    return ((90.0 if place.axis == 0 else 0.0) + (VIEW_DEG if side else -VIEW_DEG)) % 360.0


def _shot(folder: str, number: int, side: int, pose: Pose, condition: str, moment: int, time: str) -> Shot:
    """Name a picture; its pose is rounded as in the name, so that the name is exact."""
    x, y = round(pose.x_m, 2), round(pose.y_m, 2)
    pose = replace(pose, x_m=x, y_m=y, heading_deg=round(pose.heading_deg, 2))
    east, north = ORIGIN_E + x, ORIGIN_N + y
    lat, lon = utm.to_latlon(east, north, ZONE, ZONE_LETTER)
    fields = (
        f"{east:.2f}",
        f"{north:.2f}",
        f"{ZONE}",
        ZONE_LETTER,
        f"{lat:.7f}",
        f"{lon:.7f}",
        f"{folder[0]}{number:06d}",
        f"{side}",
        f"{pose.heading_deg:.2f}",
        f"{pose.pitch_deg:.2f}",
        "0.00",  # roll
        f"{pose.height_m:.2f}",
        time,
        condition,
    )
    return Shot(folder, f"@{'@'.join(fields)}@.jpg", pose, condition, moment)
