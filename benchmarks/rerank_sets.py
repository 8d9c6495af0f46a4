"""Data sets on which re-ranking is tried: drawn cities, and photos with positions made from frame numbers.

| set | queries and database | right answers |
|---|---|---|
| city-N, hard-N | a drawn city of seed N, as `placeray demo` and `placeray demo --hard` draw it, with more queries | within 25 m |
| corridor, corridor-back | one pass of a route against the other, and the other way round | within 25 m |
| tower | frames of videos against frames at least two away; one video of each scene | up to five frames away |
"""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from pathlib import Path

from pipelines.demo.dataset import draw_city

__all__ = ["CITIES", "PHOTOS", "folder_of", "tower_frames"]

CITIES = ("city-0", "city-1", "city-2", "hard-0", "hard-1", "hard-2", "hard-3")
PHOTOS = ("corridor", "corridor-back", "tower")  # folders of the user
DATABASE, QUERIES = 240, 240
TOWER_STEP, TOWER_STORED = 5, (2, 3)  # every fifth frame asks, the third and fourth after it are stored
TOWER_FRAME_M = 5.0  # so that 25 m are five frames
TOWER_SCENE_M = 10_000.0  # from one scene to the next
_OTHER_TAKES = ("f22_central_main", "f04_hallway_alt")  # scenes that another, longer video shows
_ORIGIN = (500_000.0, 4_000_000.0)


def folder_of(name: str, scratch: Path, photos: Path | None = None) -> Path:
    """Return the folder of a data set in the standard layout, drawn or copied there where it is not yet.

    Args:
        name: One of `CITIES` or `PHOTOS`, or another seed of the former.
        scratch: Where it is made.
        photos: Folder with corridor and ie_tower, for `PHOTOS`.
    """
    folder = scratch / name
    if match := re.fullmatch(r"(city|hard)-(\d+)", name):
        hard, seed = match[1] == "hard", int(match[2])
        draw_city(
            folder, seed=seed, database_images=DATABASE, query_images=QUERIES, hard=hard, workers=1
        )
        return folder
    if name not in PHOTOS or photos is None:
        raise ValueError(f"no set {name!r}: {', '.join(CITIES)}; with --photos {', '.join(PHOTOS)}")
    if name == "corridor":
        return photos / "corridor"
    if not (folder / "complete").exists():
        images = folder / "images" / "test"
        for side in ("queries", "database"):
            (images / side).mkdir(parents=True, exist_ok=True)
        if name == "tower":
            for (side, file), path in tower_frames(photos / "ie_tower").items():
                shutil.copyfile(path, images / side / file)
        else:
            for side, other in (("queries", "database"), ("database", "queries")):
                for path in (photos / "corridor" / "images" / "test" / other).glob("*.jpg"):
                    shutil.copyfile(path, images / side / path.name)
        (folder / "complete").touch()
    return folder


def tower_frames(root: Path) -> dict[tuple[str, str], Path]:
    """Return the frames of the tower by side and file name, which says the scene and the frame's number."""
    distinct = {path.read_bytes(): path for path in sorted(root.glob("*/*_frame_*.jpg"), reverse=True)}
    videos: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for path in distinct.values():
        video, number = path.stem.split("_frame_")
        if video not in _OTHER_TAKES:
            videos[video].append((int(number), path))
    frames = {}
    for scene, (video, numbered) in enumerate(sorted(videos.items())):
        first = min(number for number, _ in numbered)
        for number, path in sorted(numbered):
            step = (number - first) % TOWER_STEP
            if step and step not in TOWER_STORED:
                continue
            east = _ORIGIN[0] + TOWER_FRAME_M * (number - first)
            north = _ORIGIN[1] + TOWER_SCENE_M * scene
            side = "database" if step else "queries"
            frames[side, f"@{east:.2f}@{north:.2f}@{video}-{number}.jpg"] = path
    return frames
