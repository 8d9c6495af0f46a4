"""Results on stdout: tables for people, JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["print_answer", "print_evaluation", "print_json", "print_pairs", "print_training"]


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on one line."""
    print(json.dumps(value, default=str))


def print_pairs(values: dict[str, Any]) -> None:
    """Print one name and value per line; lists as their length and first items."""
    for name, value in values.items():
        if isinstance(value, dict):
            value = json.dumps(value, default=str)
        elif isinstance(value, list | tuple):
            value = f"{len(value)}" + ("".join(f"\n  {item}" for item in value[:50]) if value else "")
        print(f"{name}: {value}")


def print_answer(answer: dict[str, Any]) -> None:
    """Print the ranked places of one query."""
    print(answer["image"])
    if "error" in answer:
        print(f"  rejected: {answer['error']['reason']} ({answer['error']['message']})")
        return
    print(f"  {'rank':>4}  {'matches':>7}  {'similarity':>10}  {'position':<28}  image")
    for match in answer["matches"]:
        if match["lat"] is not None:
            position = f"{match['lat']:.6f}, {match['lon']:.6f}"
        elif match["utm_e"] is not None:
            position = f"{match['utm_e']:.1f} E {match['utm_n']:.1f} N"
        else:
            position = "unknown"
        count = "-" if match["mutual_matches"] is None else match["mutual_matches"]
        scores = f"{match['rank']:>4}  {count:>7}  {match['similarity']:>10.4f}"
        print(f"  {scores}  {position:<28}  {match['image_id']}")
    if answer["degraded"]:
        print("  some of the stored data could not be read: run placeray verify on the store")
    matched = f", {answer['reranked']} candidates matched" if "reranked" in answer else ""
    print(f"  {answer['timings_ms']['total']:.0f} ms{matched}")


def print_evaluation(summary: Mapping[str, Any]) -> None:
    """Print the recall table of an evaluation and notes on what was left out."""
    print(f"\n{summary['dataset']}: {summary['queries']} queries, {summary['database']} database images")
    print(f"protocol: {summary['protocol']}; model {summary['model']}")
    columns = list(summary["recall"]["global"])
    print(f"{'Recall':<20}" + "".join(f"{'R@' + k:>8}" for k in columns))
    for key, name in (("global", "global descriptor"), ("reranked", "after re-ranking")):
        print(f"{name:<20}" + "".join(f"{summary['recall'][key][k]:>8.1f}" for k in columns))
    print("seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in summary["seconds"].items()))
    print(f"candidates matched per query: {summary['matched_per_query']:g}")
    for key, value in summary.items():
        if key.startswith(("queries_", "database_")) and value:
            print(f"note: {key.replace('_', ' ')}: {value}")


def print_training(report: dict[str, Any]) -> None:
    """Print recall before and after fine-tuning, and the paths of the results."""
    print(f"\n{report['dataset']}: {report['queries']} queries, {report['database']} database images")
    print(f"protocol: {report['protocol']}")
    recall = report["recall"]
    columns = list(recall["before"]["global"])
    print(f"{'Recall':<28}" + "".join(f"{'R@' + k:>8}" for k in columns))
    for key, name in (("global", "global descriptor"), ("reranked", "after re-ranking")):
        for when in ("before", "after"):
            values = "".join(f"{recall[when][key][k]:>8.1f}" for k in columns)
            print(f"{name + ', ' + when:<28}{values}")
    facts = report["facts"]
    print(
        f"best epoch {facts['best_epoch']} of {facts['epochs']}, {facts['steps']} steps, "
        f"{facts['seconds']:.0f} s, {facts['workers']} workers on {facts['device']}"
    )
    print(f"weights: {report['out']}\nreport: {report['run']}/report.html")
    print(f"use them: placeray index SOURCE --store URI --model {report['out']}")
