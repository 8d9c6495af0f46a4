"""Parts of an index on the descriptors, built apart by many workers and used as one (Lance's IVF_RQ, cosine).

All parts have the same lists and the same rotation (RaBitQ; Gao and Long 2024), so that they can be merged.
They are merged once, before they are used: Lance has damaged segments silently that were merged again
(lance-format/lance#7731), so that an index of this name is never merged.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = [
    "SEGMENTED_INDEX",
    "IndexModel",
    "build_segment",
    "index_names",
    "merged",
    "segment_from_json",
    "segment_to_json",
    "tidy",
    "train_model",
    "using",
]

SEGMENTED_INDEX = "descriptor_segments"  # LanceDB's own builder names its index descriptor_idx
_SAMPLES_PER_LIST, _ROUNDS = 64, 20
_COLUMN = "descriptor"


@dataclass(frozen=True, eq=False)
class IndexModel:
    """What all parts of an index share.

    Attributes:
        centroids: (lists, D), in the type of the stored descriptors.
        rotation: Lance's description of the rotation before the rounding.
        bits: Per dimension, of a code.
    """

    centroids: npt.NDArray[Any]
    rotation: str
    bits: int


def train_model(dataset: Any, *, lists: int, bits: int) -> IndexModel:
    """Cluster a sample of the descriptors, and draw a rotation.

    Args:
        dataset: A version of the table, opened by pylance.
        lists: Number of inverted lists.
        bits: Per dimension, of a code.
    """
    from lance.indices import IndicesBuilder
    from lance.lance import indices

    field = dataset.schema.field(_COLUMN).type
    sampled = min(_SAMPLES_PER_LIST, dataset.count_rows() // lists)
    trained = IndicesBuilder(dataset, _COLUMN).train_ivf(
        num_partitions=lists, distance_type="cosine", sample_rate=max(1, sampled), max_iters=_ROUNDS
    )
    flat = trained.centroids.flatten().to_numpy(zero_copy_only=False)
    centroids = np.asarray(flat).reshape(-1, field.list_size).astype(field.value_type.to_pandas_dtype())
    rotation = indices.build_rq_model(dimension=field.list_size, num_bits=bits)
    return IndexModel(centroids, str(rotation), bits)


def build_segment(dataset: Any, model: IndexModel, fragments: Sequence[int]) -> Any:
    """Build the part of the rows of some fragments; nothing uses it yet.

    Args:
        dataset: A version of the table, opened by pylance.
        model: Shared by all parts.
        fragments: Numbers of fragments of the version.

    Returns:
        pylance's description of it.
    """
    lists, width = model.centroids.shape
    flat = pa.array(np.ascontiguousarray(model.centroids).reshape(-1))
    return dataset.create_index_uncommitted(
        column=_COLUMN,
        index_type="IVF_RQ",
        name=SEGMENTED_INDEX,
        metric="cosine",
        replace=True,
        num_partitions=lists,
        num_bits=model.bits,
        ivf_centroids=pa.FixedSizeListArray.from_arrays(flat, width),
        rabitq_model=model.rotation,
        fragment_ids=list(fragments),
    )


def merged(dataset: Any, segments: Sequence[Any]) -> Any:
    """Merge parts into one, which nothing uses yet; arguments as of `using`."""
    return segments[0] if len(segments) == 1 else dataset.merge_existing_index_segments(list(segments))


def using(dataset: Any, segments: Sequence[Any]) -> Any:
    """Merge parts, and return the change that makes the result the one index on the descriptors.

    Args:
        dataset: The head of the table, opened by pylance.
        segments: From `build_segment`, of different fragments.
    """
    from lance import LanceOperation
    from lance.dataset import Index

    whole = merged(dataset, segments)
    former = [
        Index(
            uuid=segment.uuid,
            name=each.name,
            fields=list(whole.fields),
            dataset_version=segment.dataset_version_at_last_update,
            fragment_ids=segment.fragment_ids,
            index_version=segment.index_version,
        )
        for each in dataset.describe_indices()
        if _COLUMN in each.field_names
        for segment in each.segments
    ]
    return LanceOperation.CreateIndex([whole], former)


def index_names(dataset: Any) -> dict[str, int]:
    """Return the names of the indexes on the descriptors, and of how many segments each is."""
    return {
        each.name: len(each.segments) for each in dataset.describe_indices() if _COLUMN in each.field_names
    }


def tidy(dataset: Any) -> None:
    """Merge small data files, and index rows that are not in the index yet, in a segment of their own."""
    dataset.optimize.compact_files()
    dataset.optimize.optimize_indices(num_indices_to_merge=0, index_names=[SEGMENTED_INDEX])


def segment_to_json(segment: Any) -> dict[str, Any]:
    """Return the description of a part as plain values."""
    kind, details = segment.index_details
    return {
        "uuid": segment.uuid,
        "fields": list(segment.fields),
        "dataset_version": segment.dataset_version,
        "fragments": sorted(segment.fragment_ids),
        "index_version": segment.index_version,
        "created_at": segment.created_at.isoformat(),
        "files": [[file.path, file.size_bytes] for file in segment.files],
        "kind": kind,
        "details": base64.b64encode(details).decode(),
    }


def segment_from_json(values: dict[str, Any]) -> Any:
    """Return the part that `segment_to_json` described.

    Raises:
        KeyError, TypeError, ValueError: these are not such values.
    """
    from lance.bitmap import Bitmap
    from lance.dataset import Index, IndexFile

    return Index(
        uuid=str(values["uuid"]),
        name=SEGMENTED_INDEX,
        fields=[int(number) for number in values["fields"]],
        dataset_version=int(values["dataset_version"]),
        fragment_ids=Bitmap(int(number) for number in values["fragments"]),
        index_version=int(values["index_version"]),
        created_at=datetime.fromisoformat(values["created_at"]),
        files=[IndexFile(path=str(path), size_bytes=int(size)) for path, size in values["files"]],
        index_details=(str(values["kind"]), base64.b64decode(values["details"], validate=True)),
    )
