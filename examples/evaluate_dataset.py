"""Measure Recall@K of the default model on a data set, before and after re-ranking.

    python examples/evaluate_dataset.py city

The data set has the standard layout: images/test/database and images/test/queries, with positions in the file
names. Its database is indexed into a temporary store; pass `store_uri=` to keep one.
"""

import sys

import placeray


def main(dataset: str) -> None:
    """Print a table: one row per stage, one column per K."""
    summary = placeray.evaluate(dataset)
    print(f"{summary['queries']} queries, {summary['database']} database images")
    for stage, recall in summary["recall"].items():
        print(f"{stage:>10}", *(f"R@{k} {value:5.1f}" for k, value in recall.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
