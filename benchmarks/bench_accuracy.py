"""Recall of descriptors and of re-ranking scores on every photo set at hand.

    python -m benchmarks.bench_accuracy --photos DIR

Prints R@1, R@5 and R@20 of each set before re-ranking and after it, and the means over the sets of 20 queries
and more: all, those of real photos, and drawn ones. The first run extracts the photos and matches all
pairs (minutes); later ones read that from `--scratch`, so that a variant costs seconds. Sets
and variants that are not measured again stay in the file of results: delete it after a change of the method.
Add a descriptor to `benchmarks.accuracy_descriptors`, a score to `benchmarks.accuracy_scores`.
"""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.accuracy_descriptors import DESCRIPTORS
from benchmarks.accuracy_features import Scratch
from benchmarks.accuracy_scores import SCORES
from benchmarks.accuracy_sets import REAL_SETS, PhotoSet, photo_sets
from benchmarks.kept import add_kept_folder
from benchmarks.machine import describe_machine
from benchmarks.results import command_line, make_parser, read_results, write_results

RECALL_AT = (1, 5, 20)
MIN_QUERIES = 20  # of a set that counts in the means
Figures = dict[str, Any]


def main() -> None:
    parser = make_parser(__doc__, "accuracy.json")
    parser.add_argument("--photos", type=Path, default=Path("photos"), help="folder of the photo sets")
    add_kept_folder(parser, "--scratch", "accuracy")
    parser.add_argument("--sets", nargs="+", help="names, or how they begin and *; default: all")
    parser.add_argument("--descriptors", nargs="+", choices=DESCRIPTORS, default=["gem", "learned"])
    parser.add_argument("--scores", nargs="*", choices=SCORES, default=["count", "votes"])
    parser.add_argument(
        "--candidates", nargs="+", type=int, default=[10, 20, 50, 100], help="how many are re-ranked"
    )
    parser.add_argument("--image-size", type=int, default=224, help="side of the network's input in pixels")
    parser.add_argument("--threads", type=int, default=2, help="of the processor")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    scratch = Scratch(args.scratch, image_size=args.image_size)
    results = read_results(args.out)
    command = re.sub(r" --(out|scratch|threads) \S+", "", command_line())
    results["commands"] = list(dict.fromkeys([*results.get("commands", ()), command]))
    results["machine"] = describe_machine(torch=torch.__version__)
    sizes = results.setdefault("sets", {})
    table: dict[str, Figures] = results.setdefault(str(args.image_size), {})
    variants: set[str] = set()
    for name, make in photo_sets(args.photos, args.scratch):
        if args.sets and not any(fnmatch.fnmatchcase(name, pattern) for pattern in args.sets):
            continue
        started = time.perf_counter()
        photos = make()
        sizes[name] = {"queries": len(photos.queries), "database": len(photos.database)}
        for variant, figures in measure(
            photos, scratch, descriptors=args.descriptors, scores=args.scores, candidates=args.candidates
        ).items():
            table.setdefault(variant, {})[name] = figures
            table[variant] |= _means(table[variant], sizes)
            variants.add(variant)
        print(f"{name}: {sizes[name]}, {time.perf_counter() - started:.1f} s", flush=True)
        write_results(args.out, results, finished=False)  # after each set: all of them take long
    write_results(args.out, results)
    _print({variant: figures for variant, figures in table.items() if variant in variants})


def measure(
    photos: PhotoSet,
    scratch: Scratch,
    *,
    descriptors: Sequence[str],
    scores: Sequence[str],
    candidates: Sequence[int],
) -> dict[str, Figures]:
    """Return R@K in percent by variant: `descriptor`, and `descriptor / score / candidates`."""
    database, queries = scratch.features(photos)
    pairs = scratch.neighbours(photos) if scores else None
    figures = {}
    for descriptor in descriptors:
        stored, asked = DESCRIPTORS[descriptor](database, queries)
        similarity = asked @ stored.T
        if photos.left_out is not None:
            similarity = np.where(photos.left_out, -np.inf, similarity)
        order = np.argsort(-similarity, axis=1, kind="stable")
        figures[descriptor] = _recall(photos, order)
        for score in scores if pairs is not None else ():
            for count in candidates:
                figures[f"{descriptor} / {score} / {count}"] = _recall(
                    photos, _reranked(order[:, :count], similarity, pairs, score)
                )
    return figures


def _reranked(
    order: NDArray[np.int64], similarity: NDArray[np.float32], pairs: Any, score: str
) -> NDArray[np.int64]:
    """Order each query's candidates by score, ties by similarity."""
    rows = []
    for query, candidates in enumerate(order):
        possible = candidates[np.isfinite(similarity[query, candidates])]
        scores = SCORES[score](
            pairs.partner[query, possible],
            pairs.similarity[query, possible],
            pairs.grid,
            similarity[query, possible],
        )
        best = possible[np.argsort(-scores, kind="stable")]
        rows.append(np.pad(best, (0, order.shape[1] - len(best)), constant_values=-1))
    return np.stack(rows)


def _recall(photos: PhotoSet, order: NDArray[np.int64]) -> Figures:
    right = np.take_along_axis(photos.right, order, axis=1) & (order >= 0)
    return {str(k): round(100 * float(right[:, :k].any(axis=1).mean()), 2) for k in RECALL_AT}


def _means(figures: dict[str, Figures], sizes: dict[str, Figures]) -> dict[str, Figures]:
    """Return the means over the sets of `MIN_QUERIES` and more: all, of real photos, and drawn ones."""
    large = [name for name in figures if name in sizes and sizes[name]["queries"] >= MIN_QUERIES]
    real = [name for name in large if name.startswith(REAL_SETS)]
    drawn = [name for name in large if not name.startswith(REAL_SETS)]
    means = {"mean": large, "mean real": real, "mean drawn": drawn}
    return {
        label: {"sets": len(names)}
        | {str(k): round(float(np.mean([figures[name][str(k)] for name in names])), 2) for k in RECALL_AT}
        for label, names in means.items()
        if names
    }


def _print(table: dict[str, Figures]) -> None:
    names = list(dict.fromkeys(name for figures in table.values() for name in figures))
    width = max(map(len, table))
    for number, name in enumerate(names):
        print(f"{number:>4} = {name}")
    print("R@1 / R@5 / R@20".ljust(width), *(f"{number:^15}" for number in range(len(names))))
    for variant, figures in table.items():
        print(variant.ljust(width), *(f"{_cell(figures.get(name)):>15}" for name in names))


def _cell(figures: Figures | None) -> str:
    if not figures:
        return ""
    return " / ".join(f"{figures[str(k)]:.{1 if k == 1 else 0}f}" for k in RECALL_AT)


if __name__ == "__main__":
    main()
