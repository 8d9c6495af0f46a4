"""A drawn city as a data set in the standard layout, with exact poses: for demos, tests and benchmarks.

On one kind of processor all of it follows from the seed, byte for byte, whatever the number of workers.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from pipelines.demo.camera import Pose
from pipelines.demo.plan import PLACE_STEP_M, City
from pipelines.demo.scene import render_view
from pipelines.demo.shots import CityError, Shot, check_counts, plan_shots

__all__ = ["CityError", "CitySummary", "draw_city", "take_picture"]

# Raise with any change of pixels or names: a city begun by other code must not be finished by this.
CITY_VERSION = 1
MIN_SIZE_PX, MAX_SIZE_PX = 32, 4096
SPLITS = ("train", "val", "test")
JPEG_QUALITY = 90
SHOTS_PER_TASK = 64
README = """A procedural city: every picture here was drawn by `placeray demo`, none is a photo.

images/*/database: one picture of either street side every 10 m, by day.
images/*/queries: a few metres and degrees away, at night, in snow, under clouds.
File names carry the exact pose:
@utm_e@utm_n@zone@letter@lat@lon@pano_id@tile@heading@pitch@roll@height@timestamp@note@.jpg
city*.json holds the values that the city was drawn from; the same values draw the same pictures.
"""


@dataclass(frozen=True)
class CitySummary:
    """What was drawn.

    Attributes:
        folder: The data set.
        database_images: Pictures in the database.
        query_images: Pictures among the queries.
        street_m: Length of the streets that the database covers.
        conditions: Number of queries of each condition.
        drawn: Pictures drawn by this call; the others were there from an interrupted run.
    """

    folder: Path
    database_images: int
    query_images: int
    street_m: float
    conditions: dict[str, int]
    drawn: int


def draw_city(
    out: str | Path,
    *,
    seed: int = 0,
    database_images: int = 240,
    query_images: int = 80,
    size: tuple[int, int] = (320, 240),
    workers: int | None = None,
    split: str = "test",
    hard: bool = False,
    spacing_m: float = PLACE_STEP_M,
) -> CitySummary:
    """Draw a city into `out`/images/`split`/{database,queries}.

    An interrupted run is finished by the same call again; finished pictures are not drawn again. With more
    than one worker, a script must call this below `if __name__ == "__main__":`, since workers import it.

    For a data set to fine-tune on, draw one city with split="train" and another, of another seed, with
    split="val" into the same folder.

    Args:
        out: Folder of the data set; it must be new, empty, or hold the same city or other splits.
        seed: Everything follows from it.
        database_images: Pictures in the database, two per place.
        query_images: Pictures among the queries.
        size: Width and height of the pictures in pixels.
        workers: Processes that draw; None takes as many as there are processors.
        split: `train`, `val` or `test`.
        hard: Blocks and facades repeat, scaffolding and vans hide some; queries are taken in rain and glare
            too, turned by up to 60 degrees, from other heights and through wide and narrow lenses.
        spacing_m: Metres between two places of the database, 1 to 100.

    Raises:
        CityError: a number out of range, or a folder that holds something else.
    """
    folder = Path(out)
    _check(seed, database_images, query_images, size, workers, split)
    if not 1.0 <= spacing_m <= 100.0:
        raise CityError(f"spacing_m {spacing_m:g}: give 1 to 100 metres")
    counts = {"seed": seed, "database_images": database_images, "query_images": query_images}
    _claim(
        folder,
        split,
        {"version": CITY_VERSION, **counts, "size": list(size)}
        | ({"hard": True} if hard else {})
        | ({"spacing_m": spacing_m} if spacing_m != PLACE_STEP_M else {}),
    )
    city, shots = plan_shots(**counts, hard=hard, spacing_m=spacing_m)
    pictures = folder / "images" / split
    missing = [shot for shot in shots if not _path(pictures, shot).exists()]
    tasks = [missing[i : i + SHOTS_PER_TASK] for i in range(0, len(missing), SHOTS_PER_TASK)]
    processes = min(workers or len(os.sched_getaffinity(0)), len(tasks))
    if processes <= 1:
        _take(pictures, city, missing, size)
    else:
        _take_in_processes(pictures, city, tasks, size, processes)
    conditions = Counter(shot.condition for shot in shots if shot.folder == "queries")
    return CitySummary(
        folder, database_images, query_images, spacing_m / 2 * database_images, dict(conditions), len(missing)
    )


def _check(
    seed: int,
    database_images: int,
    query_images: int,
    size: tuple[int, int],
    workers: int | None,
    split: str,
) -> None:
    check_counts(seed, database_images, query_images)
    if not all(MIN_SIZE_PX <= side <= MAX_SIZE_PX for side in size):
        raise CityError(f"size {size[0]}x{size[1]}: give {MIN_SIZE_PX} to {MAX_SIZE_PX} pixels per side")
    if workers is not None and workers < 1:
        raise CityError(f"workers {workers}: give 1 or more, or None for as many as there are processors")
    if split not in SPLITS:
        raise CityError(f"split {split!r}: give one of {', '.join(SPLITS)}")


def _claim(folder: Path, split: str, claim: dict[str, object]) -> None:
    """Make the folders, and make sure that they hold this city or nothing."""
    text = json.dumps(claim, indent=2) + "\n"
    path = folder / ("city.json" if split == "test" else f"city-{split}.json")
    if folder.exists() and not folder.is_dir():
        raise CityError(f"{folder} is a file: give a folder")
    if path.exists():
        if path.read_text(encoding="utf-8") != text:
            raise CityError(
                f"{folder} holds a city drawn from other values: delete it or give another folder"
            )
    elif folder.exists() and any(folder.iterdir()) and not any(folder.glob("city*.json")):
        raise CityError(f"{folder} holds something other than a city: give an empty or new folder")
    for side in ("database", "queries"):
        (folder / "images" / split / side).mkdir(parents=True, exist_ok=True)
    _write(folder / "README.md", README.encode())
    _write(path, text.encode())


def _path(pictures: Path, shot: Shot) -> Path:
    return pictures / shot.folder / shot.name


def _write(path: Path, content: bytes) -> None:
    """Write a whole file or none: an interrupted run leaves no truncated picture."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _take(pictures: Path, city: City, shots: list[Shot], size: tuple[int, int]) -> None:
    for shot in shots:
        take_picture(_path(pictures, shot), city, shot.pose, shot.condition, shot.moment, size)


def take_picture(
    path: Path, city: City, pose: Pose, condition: str, moment: int, size: tuple[int, int]
) -> None:
    """Draw what a camera sees into a JPEG, unless it is there; arguments as of `render_view`."""
    if path.exists():
        return
    buffer = BytesIO()
    pixels = render_view(city, pose, condition=condition, moment=moment, size=size)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    _write(path, buffer.getvalue())


def _take_in_processes(
    pictures: Path, city: City, tasks: list[list[Shot]], size: tuple[int, int], workers: int
) -> None:
    # Spawned, not forked: the caller may run threads of Ray or torch.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(_take, pictures, city, task, size) for task in tasks]
        try:
            for future in as_completed(futures):
                future.result()
        except BrokenProcessPool as error:
            raise CityError(
                "a drawing process died: run the same command again to continue; in a script, draw below "
                '`if __name__ == "__main__":` or with workers=1'
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
