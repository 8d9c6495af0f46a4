"""The parts of an index that many workers have built so far, so that an interrupted build goes on.

One small file beside the store's own; what it names is checked against the table before it is used.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from storage.errors import CorruptStore
from storage.json_values import parse_object
from storage.layout import INDEX_BUILD_FILE, TABLE_FOLDER, is_table_file_name
from storage.objects.files import Location, all_exist, exists, read_bounded, remove_files, write_file
from storage.table.fragments import Fragment
from storage.table.index_segments import IndexModel, segment_from_json, segment_to_json

__all__ = ["UnfinishedIndex", "forget_unfinished", "read_unfinished"]

_MAX_BYTES = 1 << 28
_DTYPES = ("float16", "float32")
# What values of other types and sizes than `write` gives raise.
_UNUSABLE = (AttributeError, KeyError, IndexError, OverflowError, TypeError, ValueError)


@dataclass
class UnfinishedIndex:
    """An index in the making.

    Attributes:
        model: What its parts share.
        segments: pylance's descriptions of the parts that are built.
    """

    model: IndexModel
    segments: list[Any] = field(default_factory=list)

    @property
    def fragments(self) -> set[int]:
        """The fragments whose rows are in a part."""
        return {int(number) for segment in self.segments for number in segment.fragment_ids}

    def write(self, folder: Location, fragments: Mapping[int, Fragment]) -> None:
        """Keep what is built.

        Args:
            folder: The store's folder.
            fragments: Of the version that the parts were built from.
        """
        centroids = self.model.centroids
        values = {
            "bits": self.model.bits,
            "rotation": self.model.rotation,
            "shape": list(centroids.shape),
            "dtype": str(centroids.dtype),
            "centroids": base64.b64encode(np.ascontiguousarray(centroids).tobytes()).decode(),
            "segments": [segment_to_json(segment) for segment in self.segments],
            "data_files": {str(number): list(fragments[number].files) for number in self.fragments},
        }
        write_file(folder / INDEX_BUILD_FILE, json.dumps(values).encode())


def read_unfinished(
    folder: Location, fragments: Mapping[int, Fragment], *, width: int, bits: int
) -> UnfinishedIndex | None:
    """Return what an interrupted build has left for a version; None: nothing that can be used.

    Args:
        folder: The store's folder.
        fragments: Of the version.
        width: Dimensions of its descriptors.
        bits: Per dimension, that codes are to have.
    """
    try:
        values = parse_object(read_bounded(folder / INDEX_BUILD_FILE, _MAX_BYTES))
        if values["bits"] != bits or values["shape"][1] != width or values["dtype"] not in _DTYPES:
            return None
        data = base64.b64decode(values["centroids"], validate=True)
        centroids = np.frombuffer(data, values["dtype"]).reshape(values["shape"])
        files = {int(number): tuple(names) for number, names in values["data_files"].items()}
        segments = [segment_from_json(each) for each in values["segments"]]
        model = IndexModel(centroids, str(values["rotation"]), bits)
    except (FileNotFoundError, CorruptStore, *_UNUSABLE):
        return None
    same = {number for number, each in fragments.items() if files.get(number) == each.files}
    return UnfinishedIndex(model, [each for each in segments if _usable(folder, each, same)])


def forget_unfinished(folder: Location) -> None:
    """Remove what is kept of an unfinished build, if there is any."""
    path = folder / INDEX_BUILD_FILE
    if exists(path):
        remove_files([path])


def _usable(folder: Location, segment: Any, fragments: set[int]) -> bool:
    """Return whether a part is of these fragments, and its files are there."""
    names = _names_of(segment.uuid, [file.path for file in segment.files])
    if not set(segment.fragment_ids) <= fragments or not all(map(is_table_file_name, names)):
        return False
    return bool(names) and all_exist([folder / name for name in names])


def _names_of(uuid: str, files: Iterable[str]) -> Sequence[str]:
    return [f"{TABLE_FOLDER}/_indices/{uuid}/{name}" for name in files]
