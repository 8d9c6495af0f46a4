"""Promised shares of wrong answers on drawn cities: calibrated on half of the places, judged on the others.

    python -m benchmarks.bench_known --scratch DIR

Each city answers its own queries and those of the next city of another seed, where every answer is wrong. All
photos are split in two by place, 200 times; one half calibrates. For each level it is printed how often it
could be promised, which share of the other half's answers called known was wrong, how often that exceeded
the level, and which share of the right answers was called known. The cities are those of `bench_places`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.bench_places import DATABASE, QUERIES
from benchmarks.local_index import index_here
from benchmarks.machine import describe_machine
from benchmarks.results import command_line, make_parser, write_results
from models.images import ImageRejected
from models.names import DEFAULT_MODEL
from pipelines.calibration.fit import fit, split_by_place
from pipelines.calibration.labelled import Labelled, labelled_of, unknown_of
from pipelines.demo.dataset import draw_city
from pipelines.evaluation.recall import measure_recall
from pipelines.sources import list_source, open_dataset
from serving.engine import QueryEngine
from serving.places.errors import TooFewPhotos

CITIES = ((0, 10.0), (1, 10.0), (0, 5.0), (0, 20.0))
ELSEWHERE = 72  # photos of the next city
SPLITS, CANDIDATES, LEVELS = 200, 100, (0.05, 0.1, 0.2)


def main() -> None:
    parser = make_parser(__doc__, "known.json")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir(), "placeray-places"))
    parser.add_argument(
        "--cities", nargs="+", default=[f"{seed}:{m:g}" for seed, m in CITIES], metavar="SEED:M"
    )
    args = parser.parse_args()
    torch.set_num_threads(2)
    labelled = answered(args.scratch, args.cities)
    print(f"{len(labelled)} photos, the first answer right for {100 * labelled.right.mean():.1f} %")
    results: dict[str, Any] = {"photos": len(labelled), "splits": SPLITS, "levels": judge(labelled)}
    write_results(args.out, results | {"machine": describe_machine(), "command": command_line()})


def answered(scratch: Path, cities: list[str]) -> Labelled:
    """Return the labelled answers of all cities, drawn and indexed where they are not yet."""
    folders = [_drawn(scratch, city) for city in cities]
    labelled: Labelled | None = None
    for number, folder in enumerate(folders):
        uri = scratch / f"store-{folder.name}"
        dataset = open_dataset(folder, split="test")
        if not uri.exists():
            index_here(dataset.database, uri, model=DEFAULT_MODEL)
        engine = QueryEngine.open(uri)
        own = labelled_of(measure_recall(dataset, engine, candidates=CANDIDATES).outcomes, hits=CANDIDATES)
        other = open_dataset(_another(folders, number), split="test").queries
        uris = [row["uri"] for row in list_source(other).sort_by("uri").to_pylist()][:ELSEWHERE]
        answers = list(engine.answer_many(uris, top_k=CANDIDATES, candidates=CANDIDATES))
        assert not any(isinstance(answer, ImageRejected) for answer in answers)
        both = own.joined(unknown_of(uris, answers))  # type: ignore[arg-type]
        labelled = both if labelled is None else labelled.joined(both)
    assert labelled is not None
    return labelled


def _another(folders: list[Path], number: int) -> Path:
    """Return the next city of another seed: one seed is one city, whatever the spacing."""
    following = [*folders[number + 1 :], *folders[:number]]
    return next(one for one in following if one.name.split("-")[1] != folders[number].name.split("-")[1])


def _drawn(scratch: Path, city: str) -> Path:
    seed, spacing_m = city.split(":")
    folder = scratch / f"city-{seed}-{float(spacing_m):g}"
    draw_city(
        folder,
        seed=int(seed),
        database_images=DATABASE,
        query_images=QUERIES,
        spacing_m=float(spacing_m),
        workers=1,
    )
    return folder


def judge(labelled: Labelled) -> dict[str, dict[str, float]]:
    """Return the figures of each level over all splits, and print them."""
    wrong: dict[float, list[float]] = {level: [] for level in LEVELS}
    kept: dict[float, list[float]] = {level: [] for level in LEVELS}
    for seed in range(SPLITS):
        half, rest = split_by_place(labelled, 0.5, seed=seed)
        try:
            fitted = fit(labelled.take(half), seed=seed)
        except TooFewPhotos:
            continue
        judged = labelled.take(rest)
        scores = fitted.ranking.scores(judged.signs)
        for level in LEVELS:
            promised = [promise for promise in fitted.promises if promise.level <= level + 1e-9]
            if not promised:
                continue
            above = promised[-1].above
            known = scores > (-np.inf if above is None else above)
            wrong[level].append(float((~judged.right)[known].mean()) if known.any() else 0.0)
            kept[level].append(float(known[judged.right].mean()))
    figures = {}
    for level in LEVELS:
        exceeded = sum(share > level for share in wrong[level])
        figures[f"{level:g}"] = {
            "promised_in": len(wrong[level]),
            "wrong_mean": round(100 * float(np.mean(wrong[level] or [0.0])), 2),
            "exceeded_percent": round(100 * exceeded / max(1, len(wrong[level])), 2),
            "right_kept": round(100 * float(np.mean(kept[level] or [0.0])), 1),
        }
        values = figures[f"{level:g}"]
        print(
            f"{100 * level:g} %: promised in {values['promised_in']} of {SPLITS} splits; wrong among known "
            f"{values['wrong_mean']:.1f} %; exceeded in {values['exceeded_percent']:.1f} %; of the right "
            f"answers known {values['right_kept']:.0f} %",
            flush=True,
        )
    return figures


if __name__ == "__main__":
    main()
