"""Positions of places on drawn cities with exact poses: estimators compared, and how often the radius holds.

    python -m benchmarks.bench_places --scratch DIR
    python -m benchmarks.bench_places --scratch DIR --dataset CORRIDOR

For each city and spacing: median and 90th percentile of the distance to the truth of the first
answer and of each estimator, and for the default one the share of photos whose radius holds the truth, with
the radius that the store's own photos give. The first run draws and indexes the cities (minutes).
`--dataset` measures a data set in place of the cities; each of the two keeps what the other has written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.kept import add_kept_folder
from benchmarks.local_index import index_once
from benchmarks.machine import describe_machine
from benchmarks.results import command_line, former_entries, make_parser, write_results
from models.images import ImageRejected
from pipelines.demo.dataset import draw_city
from pipelines.own_photos.due import measure_if_due
from pipelines.sources import list_source, open_dataset
from serving.engine import QueryEngine
from serving.places.estimators import DEFAULT, ESTIMATORS
from serving.places.evidence import Evidence
from serving.places.own_photos import OwnPhotos
from serving.places.position import locate
from serving.places.signs import SIGNS, signs_of
from storage.position import Position

SEEDS, SPACINGS_M = (0, 1), (5.0, 10.0, 20.0)
DATABASE, QUERIES = 240, 80
CANDIDATES = 100
_CITY = "city-"  # names of drawn cities among the results
_RATIO = SIGNS.index("ratio")


def main() -> None:
    parser = make_parser(__doc__, "places.json")
    add_kept_folder(parser, "--scratch", "places")
    parser.add_argument("--dataset", type=Path, help="measure this data set instead, such as corridor")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="of the cities")
    parser.add_argument("--spacings", type=float, nargs="+", default=list(SPACINGS_M), metavar="M")
    args = parser.parse_args()
    torch.set_num_threads(2)
    results = former_entries(args.out, lambda name: args.dataset is not None or not is_city(name))
    if args.dataset is not None:
        results[args.dataset.name] = measure(args.dataset, args.scratch / f"store-{args.dataset.name}")
    else:
        for seed in args.seeds:
            for spacing_m in args.spacings:
                name = f"{_CITY}{seed}-{spacing_m:g}"
                city = args.scratch / name
                draw_city(
                    city,
                    seed=seed,
                    database_images=DATABASE,
                    query_images=QUERIES,
                    spacing_m=spacing_m,
                    workers=1,
                )
                results[name] = measure(city, args.scratch / f"store-{name}")
                write_results(args.out, results, finished=False)
    write_results(args.out, results | {"machine": describe_machine(), "command": command_line()})


def is_city(name: str) -> bool:
    """Return whether an entry of the results is of a drawn city."""
    return name.startswith(_CITY)


def measure(dataset: Path, uri: Path) -> dict[str, Any]:
    """Return the figures of one data set, and print them."""
    layout = open_dataset(dataset, split="test")
    store = index_once(layout.database, uri)
    with store.lease():
        measure_if_due(store)
    values = store.measured("places.json")
    assert values is not None
    own = OwnPhotos.from_dict(values)
    rows = list_source(layout.queries).sort_by("uri").to_pylist()
    engine = QueryEngine.open(uri)
    answers = engine.answer_many([row["uri"] for row in rows], top_k=CANDIDATES, candidates=CANDIDATES)
    errors: dict[str, list[float]] = {name: [] for name in ESTIMATORS}
    radii = []
    for row, answer in zip(rows, answers, strict=True):
        evidence = None if isinstance(answer, ImageRejected) else Evidence.of(answer.matches)
        if evidence is None:
            continue
        for name in ESTIMATORS:
            located = locate(evidence, own.spacing_m, estimator=name)
            errors[name].append(Position.of(row).distance_m(located.position) or 0.0)
        radii.append(own.radius_m(float(signs_of(evidence)[_RATIO]), evidence.kind) or 0.0)
    figures: dict[str, Any] = {"spacing_m": round(own.spacing_m, 2), "queries": len(radii)}
    for name, metres in errors.items():
        figures[name] = {
            "median_m": round(float(np.median(metres)), 2),
            "p90_m": round(float(np.quantile(metres, 0.9)), 2),
        }
        print(f"{dataset.name:<14}{name:<18}{figures[name]['median_m']:>8.2f}{figures[name]['p90_m']:>9.2f}")
    held = np.array(errors[DEFAULT]) <= np.array(radii)
    figures |= {
        "radius_coverage": round(100 * float(held.mean()), 1),
        "radius_median_m": round(float(np.median(radii)), 1),
    }
    print(f"{dataset.name:<14}radius holds {figures['radius_coverage']:.1f} %", flush=True)
    return figures


if __name__ == "__main__":
    main()
