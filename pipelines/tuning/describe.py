"""What tuning found, as lines of text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.evaluation.describe import FEW_PLACES, few_places

__all__ = ["tuning_lines"]


def tuning_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the result of `pipelines.tuning.job.tune` as lines."""
    yield f"{result['photos']} labelled photos of {result['places']} places"
    for trial in result["trials"]:
        yield f"tried: {_trial(trial)}"
    yield f"best:   {_trial(result['reference'])}"
    yield f"chosen: {_trial(result['chosen'])}"
    if not result["reached"]:
        yield f"no setting reached {result['target_ms']:g} ms; this is the fastest"
    if result["interval"] is not None:
        ends = "{:+.1f} to {:+.1f}".format(*result["interval"])
        yield f"difference to the best: {result['difference']:+.1f} points, 95 % interval {ends}"
    yield f"search methods tried: {', '.join(result['methods_tried'])}; probes are {result['probes']}"
    for one in result["encodings"]:
        size = f"{one['bytes_per_image']:,} bytes per image"
        yield f"encoding {one['features']}: R@1 {one['recall']:.1f}, {size}"
    if recommended := result["recommended_features"]:
        gain = f"{recommended['times_smaller']:g} times smaller than float16"
        yield (
            f"recommended for a new store: --features {recommended['features']}, {gain}, "
            f"{recommended['points']:+.1f} points"
        )
    if result["places"] < FEW_PLACES:
        yield few_places(result["places"])
    if result["out"] is not None:
        yield f"settings: {result['out']}, for placeray serve --settings"


def _trial(trial: Mapping[str, Any]) -> str:
    return f"{trial['setting']}: R@1 {trial['recall']:.1f}, {trial['ms']:.1f} ms per query"
