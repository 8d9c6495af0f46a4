"""Local features on disk: bytes, time and what they cost in recall, encoding by encoding.

    python -m benchmarks.bench_features recall DATASET...
    python -m benchmarks.bench_features dense DATASET...
    python -m benchmarks.bench_features counts

Each part fills in its own key of the JSON file. `recall` extracts each data set once with the default model
and re-ranks the same candidates with every encoding, in both directions. `dense` does so with maps of the
large model's shape, which the default model makes of enlarged photos; a quarter of an hour. `counts` compares
counts on grids of that shape, made of smooth noise.
"""

from __future__ import annotations

import os

import torch

from benchmarks.features_counts import measure_counts
from benchmarks.features_recall import measure_dense_recall, measure_recall
from benchmarks.machine import describe_machine
from benchmarks.results import make_parser, read_results, write_results
from pipelines.sources import open_dataset
from storage.card import FEATURE_ENCODINGS


def main() -> None:
    parser = make_parser(__doc__, "features.json")
    parser.add_argument("part", choices=("recall", "dense", "counts"))
    parser.add_argument("dataset", nargs="*", help="data sets in the standard layout, for recall and dense")
    parser.add_argument(
        "--encodings",
        nargs="+",
        choices=FEATURE_ENCODINGS,
        default=FEATURE_ENCODINGS,
        help="for recall and dense; float16 first",
    )
    args = parser.parse_args()
    torch.set_num_threads(2 if args.part == "dense" else 1)
    results = read_results(args.out)
    if args.part == "counts":
        results["counts"] = measure_counts()
    else:
        measure = measure_recall if args.part == "recall" else measure_dense_recall
        layouts = [open_dataset(path, split="test") for path in args.dataset]
        if len({layout.name for layout in layouts}) < len(layouts):
            parser.error("two data sets have the same name, which is their key in the results: measure one")
        for layout in layouts:
            results.setdefault(args.part, {})[layout.name] = measure(layout, args.encodings)
    results.setdefault("machines", {})[args.part] = describe_machine(torch=torch.__version__)
    results.setdefault("commands", {})[args.part] = f"bench_features {args.part}"
    results.setdefault("load_average", {})[args.part] = os.getloadavg()
    write_results(args.out, results)


if __name__ == "__main__":
    main()
