"""What an atlas found, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["atlas_lines"]


def atlas_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines for a terminal of what `pipelines.atlas.job.make_atlas` returns."""
    yield f"{found['store']}: {found['images']:,} images, version {found['store_version']}"
    if found["without_position"]:
        yield f"{found['without_position']:,} images have no position and are left out"
    if found["compared"] < found["images"]:
        yield f"the neighbours of {found['compared']:,} images were looked at"
    if found["holes"] is None:
        yield "coverage: give --listing to find holes"
    else:
        yield (
            f"coverage: {found['uncovered']:,} of {found['listed']:,} listed positions have no image within "
            f"{found['radius_m']:g} m, at {found['holes']:,} places"
        )
    cost = ""
    if found["prunable"] and found["recall_queries"]:
        cost = (
            f"; without them R@1 by global descriptor goes from {found['recall_before_pruning']:.1f} to "
            f"{found['recall_after_pruning']:.1f} %, as {found['recall_queries']:,} stored images tell"
        )
    yield (
        f"near-duplicates: {found['prunable']:,} images within {found['near_m']:g} m of a kept one, "
        f"similarity at least {found['duplicate_similarity']:.3f}{cost}"
    )
    yield f"look-alikes: {found['alike']:,} pairs of places at least {found['far_m']:g} m apart"
    yield f"written: {', '.join(found['files'])}"
