"""Photo sets with known places, for recall: which photos are in the database, which ask, and what is right.

| set | queries | right answers |
|---|---|---|
| corridor, corridor-back | one pass of a route against the other, and the other way round | within 25 m |
| toy | three street photos against 17 others | the one labelled by eye |
| tower | every fifth frame of videos against the others and other floors | two to five frames away |
| tower-floor | the same against other videos | the same floor |
| tower-relit-small | every second frame again, in another light, partly hidden | at most two frames away |
| tower-moved-small | the same, seen from elsewhere, and in a slightly different light | the same |
| city-N | a drawn city of seed N: night, snow, clouds | within 25 m |
| hard-N | a drawn city in hard mode: blocks repeat, rain, glare, works, other views | within 25 m |
| fixed-N | as city-N, but from the exact poses of the database, as from fixed cameras | the same pose |

`-small` scales all photos to a width of 99 pixels first. `-warped` changes perspective, zoom, light and
colour of the queries too.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.demo.dataset import draw_city
from pipelines.demo.plan import plan_city
from pipelines.demo.scene import render_view
from pipelines.demo.shots import plan_shots
from pipelines.sources import list_source, open_dataset

__all__ = ["REAL_SETS", "Looks", "PhotoSet", "photo_sets"]

THRESHOLD_M = 25.0
TOY_LABELS = {"q1.jpg": "db2.jpg", "q2.jpg": "db5.jpg", "q3.jpg": "db11.jpg"}
TOWER_STEP, TOWER_EXCLUDED, TOWER_RIGHT = 5, 1, 5
AGAIN_RIGHT = 2
CITY_SEEDS = (0, 1, 2)
CITY_SIZE = (240, 80)
SMALL_PX = 99
DRAWN_PX = (320, 240)
REAL_SETS = ("corridor", "toy", "tower")  # the names of the others begin otherwise


class Looks(NamedTuple):
    """How photos are changed before they are used.

    Attributes:
        width: In pixels; None: as they are.
        warped: How often perspective, zoom, light and colour change.
        relit: How much light, haze and colour change, noise and patches are added; 0: not at all.
    """

    width: int | None = None
    warped: int = 0
    relit: float = 0.0


AS_THEY_ARE = Looks()


@dataclasses.dataclass(frozen=True)
class PhotoSet:
    """A database, queries, and what is right.

    Attributes:
        name: Of the set.
        database: N paths.
        queries: Q paths.
        right: (Q, N) bool.
        left_out: (Q, N) bool, photos that are no candidates for a query, such as the next video frame.
        looks: How database photos are changed.
        query_looks: How queries are changed.
    """

    name: str
    database: tuple[Path, ...]
    queries: tuple[Path, ...]
    right: NDArray[np.bool_]
    left_out: NDArray[np.bool_] | None = None
    looks: Looks = AS_THEY_ARE
    query_looks: Looks = AS_THEY_ARE

    def backwards(self) -> PhotoSet:
        """Return the set with queries and database exchanged."""
        return dataclasses.replace(
            self, name=f"{self.name}-back", database=self.queries, queries=self.database, right=self.right.T
        )

    def small(self, *, warped: bool = False) -> PhotoSet:
        """Return the set with photos of `SMALL_PX`."""
        name = f"{self.name}-small" + "-warped" * warped
        return dataclasses.replace(
            self, name=name, looks=Looks(SMALL_PX), query_looks=Looks(SMALL_PX, warped=int(warped))
        )


def photo_sets(photos: Path, scratch: Path) -> Iterator[tuple[str, Callable[[], PhotoSet]]]:
    """Yield the names of all sets that are at hand, and how to make each.

    Args:
        photos: Folder with any of the folders corridor, vpr_toy and ie_tower.
        scratch: Where cities are drawn.
    """
    if (photos / "corridor").is_dir():
        yield "corridor", lambda: _dataset(photos / "corridor", "corridor")
        yield "corridor-back", lambda: _dataset(photos / "corridor", "corridor").backwards()
        yield "corridor-small", lambda: _dataset(photos / "corridor", "corridor").small()
        yield (
            "corridor-back-small-warped",
            lambda: _dataset(photos / "corridor", "corridor").backwards().small(warped=True),
        )
    if (photos / "vpr_toy").is_dir():
        yield "toy", lambda: _toy(photos / "vpr_toy")
        yield "toy-small", lambda: _toy(photos / "vpr_toy").small()
    if (photos / "ie_tower").is_dir():
        yield "tower", lambda: _tower(photos / "ie_tower")
        yield "tower-small-warped", lambda: _tower(photos / "ie_tower").small(warped=True)
        yield "tower-floor", lambda: _tower_floors(photos / "ie_tower")
        yield "tower-floor-small", lambda: _tower_floors(photos / "ie_tower").small()
        yield "tower-relit-small", lambda: _tower_again(photos / "ie_tower", "relit", Looks(SMALL_PX, 0, 1.0))
        yield "tower-moved-small", lambda: _tower_again(photos / "ie_tower", "moved", Looks(SMALL_PX, 2, 0.5))
    for seed in CITY_SEEDS:
        yield f"city-{seed}", lambda seed=seed: _city(scratch, seed)
    yield "city-0-small", lambda: _city(scratch, 0).small()
    yield "city-1-small-warped", lambda: _city(scratch, 1).small(warped=True)
    for seed in CITY_SEEDS:
        yield f"hard-{seed}", lambda seed=seed: _city(scratch, seed, hard=True)
    for seed in CITY_SEEDS[:2]:
        yield f"fixed-{seed}-small", lambda seed=seed: _fixed_cameras(scratch, seed).small()


def _dataset(root: Path, name: str) -> PhotoSet:
    layout = open_dataset(root)
    sides = [list_source(folder).sort_by("uri").to_pylist() for folder in (layout.queries, layout.database)]
    queries, database = (np.array([(row["utm_e"], row["utm_n"]) for row in rows]) for rows in sides)
    distance = np.linalg.norm(queries[:, None] - database[None], axis=2)
    paths = [tuple(Path(row["uri"]) for row in rows) for rows in sides]
    return PhotoSet(name, paths[1], paths[0], distance <= THRESHOLD_M + 1e-6)


def _toy(root: Path) -> PhotoSet:
    database = tuple(sorted((root / "database").glob("*.jpg")))
    right = [[path.name == answer for path in database] for answer in TOY_LABELS.values()]
    return PhotoSet("toy", database, tuple(root / "queries" / name for name in TOY_LABELS), np.array(right))


class Frames(NamedTuple):
    """Video frames without copies, and for each query and other frame whether they belong together."""

    database: tuple[Path, ...]
    queries: tuple[Path, ...]
    same_floor: NDArray[np.bool_]
    same_video: NDArray[np.bool_]
    apart: NDArray[np.int64]


def _tower_frames(root: Path, *, step: int = TOWER_STEP) -> Frames:
    """Return the frames, every fifth among the queries; one video is there under two names.

    With a step of 1 all frames are on both sides.
    """
    distinct = {path.read_bytes(): path for path in sorted(root.glob("*/*_frame_*.jpg"), reverse=True)}
    paths = np.array(sorted(distinct.values()), object)
    names = [re.fullmatch(r"(.+)_frame_(\d+)", path.stem) for path in paths]
    videos = np.array([name[1] for name in names if name])
    numbers = np.array([int(name[2]) for name in names if name])
    floors = np.array([path.parent.name for path in paths])
    asked = np.arange(len(paths)) % step == 0
    others = ~asked if step > 1 else asked

    def same(values: NDArray[np.str_]) -> NDArray[np.bool_]:
        return np.asarray(values[asked][:, None] == values[others][None])

    apart = np.abs(numbers[asked][:, None] - numbers[others][None])
    return Frames(tuple(paths[others]), tuple(paths[asked]), same(floors), same(videos), apart)


def _tower(root: Path) -> PhotoSet:
    """Return the set of single places; other videos of the floor may show them too and are left out."""
    frames = _tower_frames(root)
    near = frames.same_video & (frames.apart <= TOWER_EXCLUDED)
    left_out = near | (frames.same_floor & ~frames.same_video)
    right = frames.same_video & (frames.apart <= TOWER_RIGHT) & ~near
    return PhotoSet("tower", frames.database, frames.queries, right, left_out)


def _tower_floors(root: Path) -> PhotoSet:
    frames = _tower_frames(root)
    right = frames.same_floor & ~frames.same_video
    return PhotoSet("tower-floor", frames.database, frames.queries, right, frames.same_video)


def _tower_again(root: Path, name: str, looks: Looks) -> PhotoSet:
    """Return a set whose queries are frames of the database, changed, without other videos of a floor."""
    frames = _tower_frames(root, step=1)
    asked = slice(None, None, 2)
    right = frames.same_video & (frames.apart <= AGAIN_RIGHT)
    left_out = frames.same_floor & ~frames.same_video
    paths = frames.queries
    return PhotoSet(
        f"tower-{name}-small", paths, paths[asked], right[asked], left_out[asked], Looks(SMALL_PX), looks
    )


def _city(scratch: Path, seed: int, *, hard: bool = False) -> PhotoSet:
    name = f"{'hard' if hard else 'city'}-{seed}"
    draw_city(scratch / name, seed=seed, database_images=CITY_SIZE[0], query_images=CITY_SIZE[1], hard=hard)
    return _dataset(scratch / name, name)


def _fixed_cameras(scratch: Path, seed: int) -> PhotoSet:
    """Return a set of database poses drawn in another light: by night, in snow, under clouds."""
    city_set = _city(scratch, seed)
    folder = scratch / f"fixed-{seed}"
    folder.mkdir(exist_ok=True)
    _, shots = plan_shots(seed=seed, database_images=CITY_SIZE[0], query_images=CITY_SIZE[1])
    city = plan_city(seed=seed, places=(CITY_SIZE[0] + 1) // 2)
    row = {path.name: at for at, path in enumerate(city_set.database)}
    stills = [shot for shot in shots if shot.folder == "database"][::2]
    paths, rows = [], []
    for number, shot in enumerate(stills):
        path = folder / shot.name
        if not path.exists():
            condition = ("night", "snow", "overcast")[number % 3]
            pixels = render_view(
                city, shot.pose, condition=condition, moment=10_000 + number, size=(320, 240)
            )
            Image.fromarray(pixels).save(path, quality=90)
        paths.append(path)
        rows.append(row[shot.name])
    right = np.zeros((len(paths), len(city_set.database)), bool)
    right[np.arange(len(paths)), rows] = True
    return PhotoSet(f"fixed-{seed}", city_set.database, tuple(paths), right)
