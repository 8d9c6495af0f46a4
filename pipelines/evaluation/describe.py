"""An evaluation in words: its conditions and what was left out, for the table, the page and notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "FEW_PLACES",
    "STAGE_NAMES",
    "describe_conditions",
    "describe_notes",
    "describe_part",
    "few_places",
    "interval_text",
    "part_name",
]

STAGE_NAMES = {"global": "global descriptor", "reranked": "after re-ranking"}
FEW_PLACES = 20
_DIGITS = 12  # of a digest

_NOTES = {
    "queries_without_positive": "queries have nothing right in the database and count as misses",
    "queries_rejected": "query photos could not be used and count as misses",
    "queries_without_coordinates": "queries have no coordinates and are not scored",
    "database_without_coordinates": "stored images have no coordinates and never count as right",
    "database_indexed": "database images were indexed for this evaluation",
    "database_rejected": "database images could not be used and are not in the store",
    "database_elsewhere": "stored images are not in this database and were searched with it",
    "answers_remembered": "answers are those of an earlier run with the same settings, with its times",
    "degraded": "queries were answered while something stored could not be read",
}


def describe_conditions(conditions: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the conditions as name and value, see `pipelines.evaluation.conditions`."""
    if not conditions:
        return []
    versions = conditions["versions"]
    packages = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    floor = conditions["min_similarity"]
    descriptors = [f"{conditions['descriptor_dim']} numbers", *_artifacts(conditions, "aggregation")]
    features = [conditions["features"], *_artifacts(conditions, "projection", "local_whitening")]
    reranking = "none"
    if conditions["candidates"]:
        counted = "all mutual neighbours count" if floor is None else f"counted from similarity {floor:g}"
        reranking = (
            f"{conditions['candidates']} candidates by {conditions['score'] or 'no score'}, {counted}, "
            f"{conditions['matching']}"
        )
    return [
        ("model", f"{conditions['model']}, weights {conditions['weights_sha256'][:_DIGITS]}"),
        ("input", _input(conditions)),
        ("descriptors", ", ".join(descriptors)),
        ("local features", ", ".join(features)),
        ("computed in", f"{conditions['precision']} on {conditions['device']}"),
        ("search", conditions["search"]),
        ("re-ranking", reranking),
        ("store", f"version {conditions['store_version']}, format {conditions['store_format']}"),
        ("versions", packages),
        *_dataset(conditions),
    ]


def _input(conditions: Mapping[str, Any]) -> str:
    size = f"{'x'.join(map(str, conditions['image_size']))} pixels"
    return f"{size}, resized by {conditions['resize']}" if conditions.get("resize") else size


def _dataset(conditions: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return protocol and data set, which conditions of before lack."""
    named = [("protocol", conditions["protocol"])] if conditions.get("protocol") else []
    digest = conditions.get("dataset_sha256")
    return [*named, ("data set", f"sha256 {digest[:_DIGITS]}")] if digest else named


def _artifacts(conditions: Mapping[str, Any], *names: str) -> list[str]:
    """Return what the store has learned, by name and digest."""
    return [
        f"{name.replace('_', ' ')} {conditions[f'{name}_sha256'][:_DIGITS]}"
        for name in names
        if f"{name}_sha256" in conditions
    ]


def interval_text(ends: Sequence[float | None] | None) -> str:
    """Return `low to high`; empty where there is no interval."""
    return "" if not ends or None in ends else f"{ends[0]:.1f} to {ends[1]:.1f}"


def in_brackets(ends: Sequence[float | None] | None) -> str:
    """Return ` (low to high)`; empty where there is no interval."""
    text = interval_text(ends)
    return f" ({text})" if text else ""


def few_places(count: int) -> str:
    """Return what intervals of few places are worth."""
    places = "place is" if count == 1 else "places are"
    return f"{count} {places} too few for trustworthy intervals: at least {FEW_PLACES} are needed."


def part_name(part: Mapping[str, Any]) -> str:
    """Return the name of a part of the queries, of a condition or a density."""
    if "kind" in part:
        return f"{part['kind']} {part['value']}"
    least, most = part["least"], part["most"]
    if most == 0:
        return "nothing right in the database"
    images = f"{least}" if least == most else f"{least} to {most}" if most else f"{least} or more"
    return f"{images} right {'image' if images == '1' else 'images'}"


def describe_part(part: Mapping[str, Any]) -> str:
    """Return the recall at the first answer of a part of the queries, in its final order."""
    stage = list(part["recall"])[-1]
    interval = in_brackets(part["intervals"][stage]["1"])
    return f"{part_name(part)}: R@1 {part['recall'][stage]['1']:.1f}{interval}, {part['queries']} queries"


def describe_notes(evaluation: Mapping[str, Any]) -> list[str]:
    """Return what was left out or done beside scoring, one sentence each."""
    notes = [f"{evaluation[name]} {what}." for name, what in _NOTES.items() if evaluation.get(name)]
    notes += _limit_notes(evaluation.get("limited", {}))
    if 0 < evaluation.get("places", 0) < FEW_PLACES:
        notes.append(few_places(evaluation["places"]))
    versions = evaluation.get("store_versions", ())
    newest = evaluation.get("newest_version")
    if len(versions) > 1:
        notes.append(f"The store changed during the run: versions {', '.join(map(str, versions))} answered.")
    elif newest is not None and versions and newest != versions[-1]:
        notes.append(f"The store moved to version {newest} during the run; version {versions[-1]} answered.")
    return notes


def _limit_notes(limited: Mapping[str, Any]) -> list[str]:
    """Return what a service's limits left out, see `Evaluation.limited`."""
    notes = []
    if left_out := limited.get("depths_left_out"):
        depths = ", ".join(f"R@{k}" for k in left_out)
        why = f"the service lists at most {limited['max_top_k']} places (max_top_k)"
        if limited.get("by_early_stop"):
            why = (
                f"{limited['max_top_k']} places are asked for, as with more the service would not stop early"
            )
        notes.append(f"{depths} left out: {why}.")
    if asked := limited.get("candidates_asked"):
        notes.append(
            f"{asked} candidates were asked for: the service re-ranks at most {limited['max_candidates']} "
            "(max_candidates)."
        )
    if listed := limited.get("candidates_listed"):
        notes.append(
            f"The figures of the global descriptor are of the {listed} places that the service lists of its "
            "candidates; --no-rerank gives those of the search alone."
        )
    return notes
