"""Say of each result whether it is of the present code: `make benchmarks-check`.

Exits with 1 if one is older than the code, and names it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.provenance import RESULTS, State, changed_files, statuses

NAMED = 5


def main(arguments: list[str] | None = None) -> int:
    """Print one line per result and return 1 if one is out of date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    found = statuses(parser.parse_args(arguments).results)
    for one in found:
        print(one)
        if one.state is State.OUTDATED:
            changed = changed_files(one)
            more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
            print(
                f"    changed since: {', '.join(changed[:NAMED])}{more}"
                if changed
                else "    no commit to compare"
            )
    outdated = [one.part.name for one in found if one.state is State.OUTDATED]
    if outdated:
        print(f"{len(outdated)} of {len(found)} results are older than the code: {', '.join(outdated)}.")
        print("Measure them again: make bench-all, which goes on where it stopped.")
    return 1 if outdated else 0


if __name__ == "__main__":
    raise SystemExit(main())
