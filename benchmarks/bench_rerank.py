"""`--rerank auto` beside always and never: its rule found on some queries, judged on others.

    python -m benchmarks.bench_rerank --scratch DIR
    python -m benchmarks.bench_rerank --scratch DIR --photos FOLDER

Every query of a set is answered once with all candidates matched; what a rule does to it follows from that,
by the code that the engine runs. The queries of each set are split in two by place, 100 times, and the rule
of either half is judged on the other one; then the rule of each whole set is judged on each other set.
Printed are R@1 of never, always and `auto`, how far `auto` was below the better of the two, and candidates
matched per query; the bar is 0.3 points or one query, whichever is more. For one split of each set the engine
itself runs with the rule in its store: its answers must be those that were worked out, and it is timed.

Drawn cities come without `--photos`; with it the corridor and the tower, and rules from each to the others.
The first run draws and indexes (minutes). `--sets` measures some alone; others keep what was written.
"""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.kept import add_kept_folder
from benchmarks.machine import describe_machine
from benchmarks.rerank_engine import measure_engine
from benchmarks.rerank_judging import SPLITS, across, print_heading, splits, summary
from benchmarks.rerank_sets import CITIES, PHOTOS
from benchmarks.rerank_sets import tried as tried_on
from benchmarks.results import command_line, former_entries, make_parser, write_results

_SUMMARIES = ("cities", "photos")
_ARROW = " -> "


def main() -> None:
    parser = make_parser(__doc__, "rerank.json")
    add_kept_folder(parser, "--scratch", "rerank")
    parser.add_argument("--photos", type=Path, help="folder with corridor and ie_tower")
    parser.add_argument("--sets", nargs="+", help="measure these alone")
    args = parser.parse_args()
    torch.set_num_threads(2)
    asked = PHOTOS if args.photos is not None else CITIES
    results = former_entries(args.out, lambda name: is_of_photos(name) != (args.photos is not None))
    if args.sets:
        asked = tuple(name for name in asked if name in args.sets)
        results = former_entries(args.out)
    tried = {name: tried_on(name, args.scratch, args.photos) for name in asked}
    print_heading()
    for name, one in tried.items():
        results[name] = splits(name, one.trials) | {
            "database": one.database,
            "candidates": one.candidates,
            "engine": measure_engine(one),
        }
        write_results(args.out, results, finished=False)
    sources = tried
    if args.photos is not None:
        cities = [name for name in CITIES if not args.sets or name in args.sets]
        sources = tried | {name: tried_on(name, args.scratch) for name in cities}
    for judged, one in sources.items():
        for source, other in sources.items():
            name = f"{source}{_ARROW}{judged}"
            if source != judged and (args.photos is None or is_of_photos(name)):
                results[name] = across(name, other.trials, one.trials)
    which = _SUMMARIES[args.photos is not None]
    measured = {name: one for name, one in results.items() if name not in _SUMMARIES}
    kept = {name: one for name, one in measured.items() if is_of_photos(name) == (args.photos is not None)}
    results[which] = {"splits": SPLITS} | summary(kept, _ARROW)
    print(which, results[which])
    whole = not args.sets
    results |= {"machine": describe_machine(), "command": command_line()}
    write_results(args.out, results, finished=whole)


def is_of_photos(name: str) -> bool:
    """Return whether an entry of the results needs the photos of `--photos`."""
    return name == _SUMMARIES[1] or any(one in PHOTOS for one in name.split(_ARROW))


if __name__ == "__main__":
    main()
