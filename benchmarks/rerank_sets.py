"""Data sets on which re-ranking is tried: drawn cities, and photos with positions made from frame numbers.

| set | queries and database | right answers |
|---|---|---|
| city-N, hard-N | a drawn city of seed N, easy or hard, with 240 queries | within 25 m |
| city-N-demo, hard-N-demo | the same with the 80 queries of the demo | within 25 m |
| corridor, corridor-back | one pass of a route against the other, and the other way round | within 25 m |
| tower | frames of videos against frames two and more away, a video per scene | up to five frames away |
"""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from benchmarks.local_index import index_once
from pipelines.calibration.rerank_trials import Trials
from pipelines.demo.dataset import draw_city
from pipelines.evaluation.recall import measure_recall
from pipelines.evaluation.result import QueryOutcome
from pipelines.sources import open_dataset
from serving.engine import QueryEngine
from serving.matching_options import default_candidates

__all__ = ["CITIES", "PHOTOS", "Tried", "folder_of", "tower_frames", "tried"]

CITIES = ("city-0", "city-1", "hard-0", "hard-1", "hard-2", "hard-1-demo")
PHOTOS = ("corridor", "corridor-back", "tower")  # folders of the user
DATABASE, QUERIES, DEMO_QUERIES = 240, 240, 80
TOWER_STEP, TOWER_STORED = 5, (2, 3)  # every fifth frame asks, the third and fourth after it are stored
TOWER_FRAME_M = 5.0  # so that 25 m are five frames
TOWER_SCENE_M = 10_000.0  # from one scene to the next
_OTHER_TAKES = ("f22_central_main", "f04_hallway_alt")  # scenes that another, longer video shows
_ORIGIN = (500_000.0, 4_000_000.0)


@dataclass(frozen=True, eq=False)
class Tried:
    """A set whose queries were answered with every candidate matched.

    Attributes:
        name: Of the set.
        uri: Its store.
        outcomes: Q queries; those that nothing in the database is right for are left out.
        trials: What re-ranking did to them.
        candidates: How many are matched.
        database: Images in the store.
    """

    name: str
    uri: Path
    outcomes: tuple[QueryOutcome, ...]
    trials: Trials
    candidates: int
    database: int


def tried(name: str, scratch: Path, photos: Path | None = None) -> Tried:
    """Answer the queries of a set; its store is made where it is not yet. See `folder_of`."""
    dataset = open_dataset(folder_of(name, scratch, photos), split="test")
    uri = scratch / f"store-{name}"
    index_once(dataset.database, uri)
    engine = QueryEngine.open(uri)
    evaluation = measure_recall(dataset, engine)
    outcomes = tuple(one for one in evaluation.outcomes if one.matches and one.positives)
    candidates = default_candidates(engine.store.card)
    trials = Trials.of(outcomes, hits=candidates)
    return Tried(name, uri, outcomes, trials, candidates, evaluation.database)


def folder_of(name: str, scratch: Path, photos: Path | None = None) -> Path:
    """Return the folder of a data set in the standard layout, drawn or copied there where it is not yet.

    Args:
        name: One of `CITIES` or `PHOTOS`, or another seed of the former.
        scratch: Where it is made.
        photos: Folder with corridor and ie_tower, for `PHOTOS`.
    """
    folder = scratch / name
    if match := re.fullmatch(r"(city|hard)-(\d+)(-demo)?", name):
        draw_city(
            folder,
            seed=int(match[2]),
            database_images=DATABASE,
            query_images=DEMO_QUERIES if match[3] else QUERIES,
            hard=match[1] == "hard",
            workers=1,
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
