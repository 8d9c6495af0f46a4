"""Judges a rule of re-ranking on queries that it was not found on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.calibration.rerank import rule_of
from pipelines.calibration.rerank_trials import Trials
from serving.places.rerank_rule import RerankRule

__all__ = ["SPLITS", "across", "allowed", "halves", "judged", "print_heading", "splits", "summary"]

SPLITS = 100
BAR_POINTS = 0.3  # or one query, whichever is more

Rows = NDArray[np.int64]


def allowed(queries: int) -> float:
    """Return how many queries `auto` may be below the better of always and never."""
    return max(1.0, BAR_POINTS / 100 * queries)


def halves(places: Rows, seed: int) -> tuple[Rows, Rows]:
    """Return the rows of half of the places, drawn at random, and the rows of the others."""
    distinct = np.unique(places)
    drawn = np.random.default_rng(seed).permutation(distinct)[: round(len(distinct) / 2)]
    first = np.isin(places, drawn)
    return np.flatnonzero(first), np.flatnonzero(~first)


def judged(rule: RerankRule, trials: Trials) -> dict[str, float]:
    """Return how many queries are right by each way, how far `auto` is below the better, and what it took."""
    left = trials.left(rule)
    right = {
        "never": int(trials.before.sum()),
        "always": int(trials.after(0.0).sum()),
        "auto": int(trials.right_by(rule).sum()),
    }
    return {
        **right,
        "queries": len(trials),
        "below": max(right["never"], right["always"]) - right["auto"],
        "left_out": int(left.sum()),
        "matched": int(trials.matched[~left].sum()),
        "matched_always": int(trials.matched.sum()),
    }


def splits(name: str, trials: Trials) -> dict[str, Any]:
    """Return, and print, the figures of a set over `SPLITS` splits, each half judged by the other's rule."""
    rules, found = [], []
    for one, other in _both_ways(trials):
        rules.append(rule_of(one, ms_per_query=0.0))
        found.append(judged(rules[-1], other))
    return _figures(name, rules, found) | {"queries": len(trials), "places": len(np.unique(trials.places))}


def across(name: str, source: Trials, trials: Trials) -> dict[str, Any]:
    """Return, and print, the figures of a set by the rule of another one."""
    rule = rule_of(source, ms_per_query=0.0)
    return _figures(name, [rule], [judged(rule, trials)]) | {"queries": len(trials), "rule": rule.to_dict()}


def _both_ways(trials: Trials) -> Iterator[tuple[Trials, Trials]]:
    for seed in range(SPLITS):
        one, other = (trials.take(rows) for rows in halves(trials.places, seed))
        yield one, other
        yield other, one


def _figures(name: str, rules: list[RerankRule], found: list[dict[str, float]]) -> dict[str, Any]:
    total = {key: sum(one[key] for one in found) for key in found[0]}
    queries = total["queries"]
    recall = {way: round(100 * total[way] / queries, 2) for way in ("never", "always", "auto")}
    figures = {
        **recall,
        # Of the means: a single split also holds the luck of the better of two.
        "below_points": round(max(recall["never"], recall["always"]) - recall["auto"], 2),
        "below_most_queries": max(one["below"] for one in found),
        "bar_kept_percent": round(
            100 * float(np.mean([one["below"] <= allowed(int(one["queries"])) for one in found])), 1
        ),
        # The same of the model's default: where it is below 100 the better way changes from half to half.
        "always_kept_percent": round(
            100
            * float(
                np.mean(
                    [
                        max(one["never"], one["always"]) - one["always"] <= allowed(int(one["queries"]))
                        for one in found
                    ]
                )
            ),
            1,
        ),
        "left_out_percent": round(100 * total["left_out"] / queries, 1),
        "matched": round(total["matched"] / queries, 1),
        "matched_always": round(total["matched_always"] / queries, 1),
        "modes": dict(Counter(rule.mode for rule in rules)),
        "blends": dict(Counter(f"{rule.blend:g}" for rule in rules)),
        "judged_queries": round(queries / len(found), 1),
    }
    print(
        f"{name:<28}{recall['never']:>7.1f}{recall['always']:>8.1f}{recall['auto']:>7.1f}"
        f"{figures['below_points']:>8.2f}{figures['below_most_queries']:>7}{figures['bar_kept_percent']:>8.1f}"
        f"{figures['left_out_percent']:>8.1f}{figures['matched']:>9.1f}  "
        f"{figures['modes']} {figures['blends']}",
        flush=True,
    )
    return figures


def print_heading() -> None:
    """Print what the columns of the table are."""
    print(f"{'set':<28}  never  always   auto   below   most  kept %  left %  matched  modes, blends")


def summary(entries: Mapping[str, Mapping[str, Any]], arrow: str) -> dict[str, Any]:
    """Return the worst and the mean of sets split in two, and of sets by the rule of another one."""
    figures: dict[str, Any] = {}
    for kind, crossed in (("split", False), ("across", True)):
        chosen = {name: one for name, one in entries.items() if (arrow in name) == crossed}
        if not chosen:
            continue
        worst = max(chosen, key=lambda name: chosen[name]["below_points"])
        figures[kind] = {
            "sets": len(chosen),
            "worst": worst,
            "worst_below_points": chosen[worst]["below_points"],
            "most_below_queries": max(one["below_most_queries"] for one in chosen.values()),
            "mean_below_points": round(float(np.mean([one["below_points"] for one in chosen.values()])), 3),
            "bar_kept_percent": round(
                float(np.mean([one["bar_kept_percent"] for one in chosen.values()])), 1
            ),
            "left_out_percent": round(
                float(np.mean([one["left_out_percent"] for one in chosen.values()])), 1
            ),
        }
    return figures
