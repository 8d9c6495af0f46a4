"""Photograph a procedural city, with exact poses: the demo, the test bed and the scale benchmark.

The database drives along every street by day and takes one picture of either side every 10 m. Queries stand
a few metres and degrees off, at night, in snow or under clouds, when other cars are parked. All of it follows
from the seed, byte for byte, whatever the number of workers.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from random import Random

import utm
from PIL import Image

from pipelines.demo.plan import City, Place, plan_city
from pipelines.demo.scene import Pose, render_view
from storage.errors import PlacerayError

__all__ = ["CityError", "CitySummary", "Shot", "draw_city", "plan_shots"]

# Raise with any change of the pixels or names, so that an unfinished city is not finished by other code.
CITY_VERSION = 1
ORIGIN_E, ORIGIN_N, ZONE, ZONE_LETTER = 601_000.0, 5_339_000.0, 33, "U"
MIN_IMAGES, MAX_IMAGES = 2, 1_000_000
MIN_SIZE_PX, MAX_SIZE_PX = 32, 4096
VIEW_DEG = 60.0
JPEG_QUALITY = 90
SHOTS_A_TASK = 64
QUERY_CONDITIONS = ("night", "snow", "overcast")
QUERY_ALONG_M, QUERY_ACROSS_M, QUERY_TURN_DEG = (1.0, 6.0), 1.5, 12.0
README = """A procedural city: every picture here was drawn by `placeray demo`, none is a photo.

images/test/database: one picture of either street side every 10 m, by day.
images/test/queries: a few metres and degrees off, at night, in snow, under clouds.
File names carry the exact pose:
@utm_e@utm_n@zone@letter@lat@lon@pano_id@tile@heading@pitch@roll@height@timestamp@note@.jpg
city.json says what the city was drawn from; the same values draw the same bytes.
"""


class CityError(PlacerayError, ValueError):
    """A city that cannot be drawn as asked; the message ends with the next step to take."""


@dataclass(frozen=True)
class Shot:
    """A picture to take.

    Attributes:
        split: `database` or `queries`.
        name: File name in the field's standard form.
        pose: Where the camera stands, in the city's metres.
        condition: Light and weather.
        moment: Seeds cars, people, clouds and noise.
    """

    split: str
    name: str
    pose: Pose
    condition: str
    moment: int


@dataclass(frozen=True)
class CitySummary:
    """What was drawn.

    Attributes:
        folder: The data set.
        database_images: Pictures in the database.
        query_images: Pictures among the queries.
        street_m: Length of the streets that the database covers.
        conditions: Number of queries of each condition.
        drawn: Pictures drawn now; the others were there from an interrupted run.
    """

    folder: Path
    database_images: int
    query_images: int
    street_m: float
    conditions: dict[str, int]
    drawn: int


def draw_city(
    out: Path,
    *,
    seed: int = 0,
    database_images: int = 240,
    query_images: int = 80,
    size: tuple[int, int] = (320, 240),
    workers: int | None = None,
) -> CitySummary:
    """Draw a city into `out`/images/test/{database,queries}.

    A run that was cut off is finished by the same call again; finished pictures are kept.

    Args:
        out: Folder of the data set; it must be new, empty, or hold the same city.
        seed: Everything follows from it.
        database_images: Pictures in the database, two a place.
        query_images: Pictures among the queries.
        size: Width and height of the pictures in pixels.
        workers: Processes that draw; None takes as many as there are processors.

    Raises:
        CityError: a number out of range, or a folder that holds something else.
    """
    folder = Path(out)
    _check(seed, database_images, query_images, size, workers)
    _claim(folder, seed=seed, database_images=database_images, query_images=query_images, size=size)
    city, shots = plan_shots(seed=seed, database_images=database_images, query_images=query_images)
    missing = [shot for shot in shots if not _path(folder, shot).exists()]
    wanted = workers or len(os.sched_getaffinity(0))
    tasks = [missing[i : i + SHOTS_A_TASK] for i in range(0, len(missing), SHOTS_A_TASK)]
    if min(wanted, len(tasks)) <= 1:
        for task in tasks:
            _take(folder, city, task, size)
    else:
        _take_in_processes(folder, city, tasks, size, min(wanted, len(tasks)))
    counts = Counter(shot.condition for shot in shots if shot.split == "queries")
    return CitySummary(
        folder, database_images, query_images, 5.0 * database_images, dict(counts), len(missing)
    )


def plan_shots(*, seed: int, database_images: int, query_images: int) -> tuple[City, list[Shot]]:
    """Plan a city just large enough and every picture to take in it, the database first.

    Raises:
        CityError: a number out of range.
    """
    _check(seed, database_images, query_images, (MIN_SIZE_PX, MIN_SIZE_PX), None)
    count = (database_images + 1) // 2
    city = plan_city(seed=seed, places=count)
    places = list(islice(city.places(), count))
    shots = list(islice(_database_shots(places), database_images))
    # Neighbours in time are neighbours in space, so that workers draw each facade once.
    chosen = sorted(
        Random(f"{seed}/queries").sample(range(database_images), min(query_images, database_images))
    )
    chosen += [i % database_images for i in range(query_images - len(chosen))]
    random = Random(f"{seed}/conditions")
    conditions = [QUERY_CONDITIONS[i % len(QUERY_CONDITIONS)] for i in range(query_images)]
    random.shuffle(conditions)
    for number, (index, condition) in enumerate(zip(chosen, conditions, strict=True)):
        shots.append(_query_shot(seed, number, places[index // 2], index % 2, condition))
    return city, shots


def _database_shots(places: list[Place]) -> Iterator[Shot]:
    for number, place in enumerate(places):
        for side in (0, 1):
            pose = Pose(place.x_m, place.y_m, _heading_deg(place, side))
            yield _shot("database", number, side, pose, "day", 0, "20250615110000")


def _query_shot(seed: int, number: int, place: Place, side: int, condition: str) -> Shot:
    random = Random(f"{seed}/query/{number}")
    # Small offsets are likelier than large ones.
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
    time = {"night": "20251108213000", "snow": "20260117120000", "overcast": "20251003150000"}[condition]
    return _shot("queries", number, side, pose, condition, number + 1, time)


def _heading_deg(place: Place, side: int) -> float:
    """Return the view to the left (side 0) or right of the street's direction, ahead of square."""
    return ((90.0 if place.axis == 0 else 0.0) + (VIEW_DEG if side else -VIEW_DEG)) % 360.0


def _shot(split: str, number: int, side: int, pose: Pose, condition: str, moment: int, time: str) -> Shot:
    """Name a picture; the pose is rounded as its name says it, so that the name is exact."""
    x, y = round(pose.x_m, 2), round(pose.y_m, 2)
    pose = Pose(x, y, round(pose.heading_deg, 2), pose.pitch_deg, pose.height_m)
    east, north = ORIGIN_E + x, ORIGIN_N + y
    lat, lon = utm.to_latlon(east, north, ZONE, ZONE_LETTER)
    fields = (
        *(f"{east:.2f}", f"{north:.2f}", f"{ZONE}", ZONE_LETTER, f"{lat:.7f}", f"{lon:.7f}"),
        *(f"{split[0]}{number:06d}", f"{side}", f"{pose.heading_deg:.2f}", f"{pose.pitch_deg:.2f}", "0.00"),
        *(f"{pose.height_m:.2f}", time, condition),
    )
    return Shot(split, f"@{'@'.join(fields)}@.jpg", pose, condition, moment)


def _check(
    seed: int, database_images: int, query_images: int, size: tuple[int, int], workers: int | None
) -> None:
    if seed < 0:
        raise CityError(f"seed {seed} is negative: give 0 or more")
    if not MIN_IMAGES <= database_images <= MAX_IMAGES:
        raise CityError(f"database_images {database_images}: give {MIN_IMAGES} to {MAX_IMAGES}")
    if not 0 <= query_images <= MAX_IMAGES:
        raise CityError(f"query_images {query_images}: give 0 to {MAX_IMAGES}")
    if not all(MIN_SIZE_PX <= side <= MAX_SIZE_PX for side in size):
        raise CityError(f"size {size[0]}x{size[1]}: give {MIN_SIZE_PX} to {MAX_SIZE_PX} pixels a side")
    if workers is not None and workers < 1:
        raise CityError(f"workers {workers}: give 1 or more, or None for as many as there are processors")


def _claim(
    folder: Path, *, seed: int, database_images: int, query_images: int, size: tuple[int, int]
) -> None:
    """Make the folders, and make sure that they hold this city or nothing."""
    claim = {
        "version": CITY_VERSION,
        "seed": seed,
        "database_images": database_images,
        "query_images": query_images,
        "size": list(size),
    }
    text = json.dumps(claim, indent=2) + "\n"
    path = folder / "city.json"
    if folder.exists() and not folder.is_dir():
        raise CityError(f"{folder} is a file: give a folder")
    if path.exists():
        if path.read_text(encoding="utf-8") != text:
            raise CityError(
                f"{folder} holds a city drawn from other values: delete it or give another folder"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise CityError(f"{folder} holds something else than a city: give an empty or new folder")
    for split in ("database", "queries"):
        (folder / "images" / "test" / split).mkdir(parents=True, exist_ok=True)
    _write(folder / "README.md", README.encode())
    _write(path, text.encode())


def _path(folder: Path, shot: Shot) -> Path:
    return folder / "images" / "test" / shot.split / shot.name


def _write(path: Path, content: bytes) -> None:
    """Write a whole file or none: an interrupted run leaves no half picture."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _take(folder: Path, city: City, shots: list[Shot], size: tuple[int, int]) -> None:
    for shot in shots:
        pixels = render_view(city, shot.pose, condition=shot.condition, moment=shot.moment, size=size)
        buffer = BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
        _write(_path(folder, shot), buffer.getvalue())


def _take_in_processes(
    folder: Path, city: City, tasks: list[list[Shot]], size: tuple[int, int], workers: int
) -> None:
    # Spawned, not forked: the caller may hold threads of Ray or torch.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(_take, folder, city, task, size) for task in tasks]
        try:
            for future in as_completed(futures):
                future.result()
        except BrokenProcessPool as error:
            raise CityError("a drawing process died: run the same command again to go on") from error
        finally:
            pool.shutdown(cancel_futures=True)
