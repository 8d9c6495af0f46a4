"""One part of an index, built by a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from storage.card_files import first_card
from storage.errors import PlacerayError
from storage.objects.location import open_location
from storage.table.index_segments import IndexModel, build_segment, segment_to_json
from storage.table.open_table import dataset_of, open_table

__all__ = ["build_part"]


def build_part(store_uri: str, version: int, model: IndexModel, fragments: Sequence[int]) -> dict[str, Any]:
    """Build the part of the rows of some fragments.

    Args:
        store_uri: The store, which this machine must be able to write to.
        version: The version.
        model: Shared by all parts.
        fragments: Numbers of fragments of the version.

    Returns:
        `part`, a description by `segment_to_json`, or `error`, one by `PlacerayError.to_dict`.
    """
    try:
        folder = open_location(store_uri)
        first_card(folder)
        table = open_table(folder, version=version)
        return {"part": segment_to_json(build_segment(dataset_of(table), model, fragments))}
    except PlacerayError as error:
        return {"error": error.to_dict()}
