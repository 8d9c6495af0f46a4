"""Promised shares of wrong answers: calibrated on half of the places, judged on the others.

    python -m benchmarks.bench_known --scratch DIR
    python -m benchmarks.bench_known --scratch DIR --dataset CORRIDOR --elsewhere ANOTHER_BUILDING

Each drawn city answers its own queries and those of the next city of another seed, where every answer is
wrong: so many that they are 30 % of the photos. `--dataset` measures a data set in place of the cities, with
photos of a folder as those of elsewhere; each of the two keeps what the other has written. All photos are
split in two by place, 200 times; one half calibrates. For each level it is printed how often it could be
promised, which share of the other half's answers called known was wrong, how often that exceeded the level,
and which share of the right answers was called known. The cities are those of `bench_places`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.bench_places import DATABASE, QUERIES
from benchmarks.kept import add_kept_folder
from benchmarks.local_index import index_once
from benchmarks.machine import describe_machine
from benchmarks.results import command_line, former_entries, make_parser, write_results
from models.images import ImageRejected
from pipelines.calibration.fit import fit, split_by_place
from pipelines.calibration.labelled import Labelled, labelled_of, unknown_of
from pipelines.demo.dataset import draw_city
from pipelines.evaluation.recall import measure_recall
from pipelines.sources import list_source, open_dataset
from serving.engine import QueryEngine
from serving.places.errors import TooFewPhotos

CITIES = ((0, 10.0), (1, 10.0), (0, 5.0), (0, 20.0))
UNKNOWN_SHARE = 0.3  # of the photos, taken elsewhere
SPLITS, CANDIDATES, LEVELS = 200, 100, (0.05, 0.1, 0.2, 0.3)
_OF_CITIES = ("photos", "unknown_share", "splits", "levels")


def main() -> None:
    parser = make_parser(__doc__, "known.json")
    add_kept_folder(parser, "--scratch", "places")
    parser.add_argument(
        "--cities", nargs="+", default=[f"{seed}:{m:g}" for seed, m in CITIES], metavar="SEED:M"
    )
    parser.add_argument("--dataset", type=Path, help="measure this data set instead, such as corridor")
    parser.add_argument("--elsewhere", type=Path, help="photos that were not taken there, for --dataset")
    args = parser.parse_args()
    if (args.dataset is None) != (args.elsewhere is None):
        parser.error("--dataset and --elsewhere belong together: give both or none")
    torch.set_num_threads(2)
    if args.dataset is None:
        results = former_entries(args.out, lambda name: name not in _OF_CITIES)
        results |= figures_of(*answered(args.scratch, args.cities))
    else:
        uri = args.scratch / f"store-{args.dataset.name}"
        results = former_entries(args.out)
        results[args.dataset.name] = figures_of(*answered_by(args.dataset, uri, args.elsewhere))
    write_results(args.out, results | {"machine": describe_machine(), "command": command_line()})


def figures_of(labelled: Labelled, unknown: int) -> dict[str, Any]:
    """Return the figures of labelled answers, of which some are to photos of elsewhere, and print them."""
    share = unknown / len(labelled)
    right = 100 * float(labelled.right.mean())
    print(
        f"{len(labelled)} photos, {100 * share:.1f} % of elsewhere; the first answer right for {right:.1f} %"
    )
    return {
        "photos": len(labelled),
        "unknown_share": round(100 * share, 1),
        "splits": SPLITS,
        "levels": judge(labelled),
    }


def answered(scratch: Path, cities: list[str]) -> tuple[Labelled, int]:
    """Return the labelled answers of all cities, drawn and indexed where they are not yet, and how many of
    them are to photos of another city.
    """
    folders = [_drawn(scratch, city) for city in cities]
    labelled: Labelled | None = None
    unknown = 0
    for number, folder in enumerate(folders):
        other = open_dataset(_another(folders, number), split="test").queries
        both, others = answered_by(folder, scratch / f"store-{folder.name}", other)
        labelled = both if labelled is None else labelled.joined(both)
        unknown += others
    assert labelled is not None
    return labelled, unknown


def answered_by(folder: Path, uri: Path, elsewhere: Path) -> tuple[Labelled, int]:
    """Return the labelled answers of a data set's store to its queries and to photos of elsewhere, and how
    many the latter are. The store is made where it is not yet.
    """
    dataset = open_dataset(folder, split="test")
    index_once(dataset.database, uri)
    engine = QueryEngine.open(uri)
    own = labelled_of(measure_recall(dataset, engine, candidates=CANDIDATES).outcomes, hits=CANDIDATES)
    listed = [row["uri"] for row in list_source(elsewhere).sort_by("uri").to_pylist()]
    uris = spread(listed, unknown_for(len(own)))
    answers = list(engine.answer_many(uris, top_k=CANDIDATES, candidates=CANDIDATES))
    assert not any(isinstance(answer, ImageRejected) for answer in answers)
    others = unknown_of(uris, answers)  # type: ignore[arg-type]
    return own.joined(others), len(others)


def unknown_for(own: int) -> int:
    """Return how many photos of elsewhere are `UNKNOWN_SHARE` of all, beside so many others."""
    return round(own * UNKNOWN_SHARE / (1 - UNKNOWN_SHARE))


def spread(uris: list[str], count: int) -> list[str]:
    """Return so many of the photos, evenly spread over the list; all where there are fewer."""
    rows = np.linspace(0, len(uris) - 1, min(count, len(uris))).round().astype(int)
    return [uris[row] for row in rows.tolist()]


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
        figures[f"{100 * level:g} %"] = {
            "promised_in": len(wrong[level]),
            "wrong_mean": round(100 * float(np.mean(wrong[level] or [0.0])), 2),
            "exceeded_percent": round(100 * exceeded / max(1, len(wrong[level])), 2),
            "right_kept": round(100 * float(np.mean(kept[level] or [0.0])), 1),
        }
        values = figures[f"{100 * level:g} %"]
        print(
            f"{100 * level:g} %: promised in {values['promised_in']} of {SPLITS} splits; wrong among known "
            f"{values['wrong_mean']:.1f} %; exceeded in {values['exceeded_percent']:.1f} %; of the right "
            f"answers known {values['right_kept']:.0f} %",
            flush=True,
        )
    return figures


if __name__ == "__main__":
    main()
