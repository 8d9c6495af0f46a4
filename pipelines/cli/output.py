"""Results on stdout: tables for people, safe to print in a terminal; JSON for scripts, exact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipelines.cli.place_words import calibration_words, place_words
from storage.text import MAX_TERMINAL_LENGTH, plain

__all__ = [
    "print_answer",
    "print_calibration",
    "print_evaluation",
    "print_json",
    "print_line",
    "print_pairs",
    "print_training",
    "print_truth",
]

_ITEMS, _MAX_OBJECT_LENGTH = 50, 100_000


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on one line."""
    print(json.dumps(value, default=str))


def print_line(text: str, *, max_length: int = MAX_TERMINAL_LENGTH) -> None:
    """Print one line of text that may hold names from a store, a listing or a service."""
    print(plain(text, max_length))


def print_pairs(values: dict[str, Any]) -> None:
    """Print one name and value per line; lists as their length and first items."""
    for name, value in values.items():
        if isinstance(value, list | tuple):
            print_line(f"{name}: {len(value)}")
            for item in value[:_ITEMS]:
                print_line(f"  {item}")
        elif isinstance(value, dict):
            print_line(f"{name}: {json.dumps(value, default=str)}", max_length=_MAX_OBJECT_LENGTH)
        else:
            print_line(f"{name}: {value}")


def print_answer(answer: dict[str, Any]) -> None:
    """Print the ranked places of one query."""
    print_line(answer["image"])
    if "error" in answer:
        print_line(f"  rejected: {answer['error']['reason']} ({answer['error']['message']})")
        return
    votes = any(match.get("score_kind") == "votes" for match in answer["matches"])
    head = f"{'votes':>6}  " if votes else ""
    print(f"  {'rank':>4}  {head}{'matches':>7}  {'similarity':>10}  {'position':<28}  image")
    for match in answer["matches"]:
        if match["lat"] is not None:
            position = f"{match['lat']:.6f}, {match['lon']:.6f}"
        elif match["utm_e"] is not None:
            position = f"{match['utm_e']:.1f} E {match['utm_n']:.1f} N"
        else:
            position = "unknown"
        count = "-" if match["mutual_matches"] is None else match["mutual_matches"]
        score = "-" if match.get("score") is None else f"{match['score']:.1f}"
        ranked_by = f"{score:>6}  " if votes else ""
        scores = f"{match['rank']:>4}  {ranked_by}{count:>7}  {match['similarity']:>10.4f}"
        print_line(f"  {scores}  {position:<28}  {match['image_id']}")
    if answer["matches"]:
        print_line(f"  {place_words(answer['place'], filtered='considered' in answer)}")
        if line := calibration_words(answer.get("calibration")):
            print_line(f"  {line}")
    elif answer.get("considered") == 0:
        print("  the filters leave no stored image: widen them")
    else:
        print("  the store holds no images: index some into it")
    if answer["degraded"]:
        print("  some of the stored data could not be read: run placeray verify on the store")
    matched = f", {answer['considered']} images considered" if "considered" in answer else ""
    matched += f", {answer['reranked']} candidates matched" if "reranked" in answer else ""
    print_line(f"  {answer['timings_ms']['total']:.0f} ms{matched}")


def print_truth(truth: Mapping[str, Any]) -> None:
    """Print whether the first place of a query is right, where the truth is known."""
    if truth["distance_m"] is None:
        print("  right: unknown, since the first place has no position")
        return
    right, comparison = ("yes", "within") if truth["right"] else ("no", "beyond")
    print(
        f"  right: {right}, the first place is {truth['distance_m']:.1f} m from where the photo was taken "
        f"({comparison} {truth['threshold_m']:g} m)"
    )


def print_evaluation(summary: Mapping[str, Any]) -> None:
    """Print the recall table of an evaluation, its conditions, and notes on what was left out."""
    from pipelines.evaluation.describe import STAGE_NAMES, describe_notes, interval_text
    from pipelines.evaluation.known_figures import describe_known
    from pipelines.evaluation.place_figures import describe_place

    print()
    print_line(f"{summary['dataset']}: {summary['queries']} queries, {summary['database']} database images")
    print_line(f"protocol: {summary['protocol']}; model {summary['model']}")
    columns = list(summary["recall"]["global"])
    print(f"{'Recall':<20}" + "".join(f"{'R@' + k:>8}" for k in columns))
    ends = summary.get("intervals", {})
    intervals = ends.get("recall", {})
    for stage, recall in summary["recall"].items():
        print(f"{STAGE_NAMES[stage]:<20}" + "".join(f"{recall[k]:>8.1f}" for k in columns))
        if of_stage := intervals.get(stage):
            texts = [interval_text(of_stage[k]) or "-" for k in columns]
            print_line(
                f"  95 % intervals: {', '.join(f'R@{k} {t}' for k, t in zip(columns, texts, strict=True))}"
            )
    _print_figures(summary)
    if line := describe_place(summary.get("place", {}), ends.get("place")):
        print_line(f"place: {line}")
    if rerank := summary.get("rerank"):
        saved = "" if rerank["saved_ms"] is None else f", {rerank['saved_ms']:.1f} ms per query saved"
        print(f"re-ranking: {100 * rerank['skipped']:.1f} % of the queries left out{saved}")
    if line := describe_known(summary.get("known", {}), ends.get("known")):
        print_line(f"known: {line}")
    _print_deployed(summary.get("deployed"))
    _print_conditions(summary["conditions"])
    print("seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in summary["seconds"].items()))
    print(f"candidates matched per query: {summary['matched_per_query']:g}")
    for note in describe_notes(summary):
        print_line(f"note: {note}")


def _print_deployed(deployed: Mapping[str, Any] | None) -> None:
    """Print what a service gives beside more exact engines, and which part costs what."""
    if deployed is None:
        return
    from pipelines.evaluation.describe import in_brackets, interval_text

    for column in deployed["columns"]:
        ends = in_brackets(column["interval"])
        took = "" if column["ms_per_query"] is None else f", {column['ms_per_query']:g} ms"
        print_line(f"{column['name']}: R@1 {column['recall']['1']:.1f}{ends}{took}")
    for cost in deployed["costs"]:
        ends = interval_text(cost["interval"])
        print_line(f"{cost['part']}: {cost['points']:+.2f} points{f' ({ends})' if ends else ''}")


def _print_figures(summary: Mapping[str, Any]) -> None:
    """Print mean average precision and median error of each stage, and recall by condition and density."""
    from pipelines.evaluation.describe import STAGE_NAMES, describe_part, in_brackets

    intervals = summary.get("intervals", {})
    if summary.get("places"):
        print(f"places: {summary['places']}; intervals draw whole places")
    for stage, values in summary.get("mean_average_precision", {}).items():
        depth = list(values)[-1]
        text = f"mAP@{depth} {values[depth]:.1f}"
        text += in_brackets(intervals["mean_average_precision"][stage][depth])
        median = summary["median_error_m"][stage]
        if median is not None:
            text += f", median error {median:.1f} m{in_brackets(intervals['median_error_m'][stage])}"
        print_line(f"{STAGE_NAMES[stage]}: {text}")
    for part in (*summary.get("by_condition", ()), *summary.get("by_density", ())):
        print_line(describe_part(part))


def _print_conditions(conditions: Mapping[str, Any]) -> None:
    from pipelines.evaluation.describe import describe_conditions

    for name, value in describe_conditions(conditions):
        print_line(f"{name}: {value}")


def print_calibration(summary: Mapping[str, Any]) -> None:
    """Print what a calibration promises."""
    print_line(
        f"{summary['dataset']}: {summary['photos']} labelled photos, {summary['elsewhere']} of them taken "
        f"elsewhere; the first answer is right for {100 * summary['right']:.1f} %"
    )
    print(f"promised with a confidence of {summary['confidence']:g}, tested on {summary['tested']} photos:")
    for promise in summary["promises"]:
        print(
            f"  at most {100 * promise['level']:g} % wrong: {promise['known']} called known, "
            f"{promise['wrong']} of them wrong"
        )
    print_line(f"answers are called known at {100 * summary['max_wrong']:g} %; kept in {summary['file']}")


def print_training(report: dict[str, Any]) -> None:
    """Print recall before and after fine-tuning, and the paths of the results."""
    print()
    print_line(f"{report['dataset']}: {report['queries']} queries, {report['database']} database images")
    print_line(f"protocol: {report['protocol']}")
    recall = report["recall"]
    columns = list(recall["before"]["global"])
    print(f"{'Recall':<28}" + "".join(f"{'R@' + k:>8}" for k in columns))
    for key, name in (("global", "global descriptor"), ("reranked", "after re-ranking")):
        for when in ("before", "after"):
            values = "".join(f"{recall[when][key][k]:>8.1f}" for k in columns)
            print(f"{name + ', ' + when:<28}{values}")
    _print_conditions(report["conditions"]["after"])
    facts = report["facts"]
    over = facts["gain_over_best_before"]
    print(
        f"R@1 over the best way before training ({over['aggregation']}, {over['score']}): "
        f"{over['global']:+.1f} by global descriptor, {over['reranked']:+.1f} after re-ranking"
    )
    print(
        f"best epoch {facts['best_epoch']} of {facts['epochs']}, {facts['steps']} steps, "
        f"{facts['seconds']:.0f} s, {facts['workers']} workers on {facts['device']}"
    )
    print_line(f"weights: {report['out']}")
    print_line(f"report: {report['run']}/report.html")
    print_line(f"use them: placeray index SOURCE --store URI --model {report['out']}")
