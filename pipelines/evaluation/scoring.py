"""How a run is scored: its protocol, the queries of it, and the frames of both sides where frames decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.evaluation.frames import frames_of_sides
from pipelines.evaluation.ground_truth import FrameTruth, GroundTruth, Truth, positions_of
from pipelines.evaluation.protocols import BadProtocol, Protocol
from pipelines.evaluation.query_keys import keys_for, with_keys
from pipelines.sources import Dataset
from storage.neighbourhoods import nearby
from storage.position import POSITION_COLUMNS, Position

__all__ = ["Scoring", "scoring_by_metres", "scoring_of"]

_POSITIONS = pa.schema(
    [(name, pa.string() if name == "utm_zone" else pa.float64()) for name in POSITION_COLUMNS]
)


@dataclass(frozen=True)
class Scoring:
    """The protocol of a run and what it needs to know of the data set.

    Attributes:
        protocol: The protocol.
        only: Paths of the queries to score; None: all.
        query_frames: Frame of each query by path, where frames decide.
        database_frames: Frame of each database image by path and by id.
    """

    protocol: Protocol
    only: frozenset[str] | None = None
    query_frames: Mapping[str, int] = field(default_factory=dict)
    database_frames: Mapping[str, int] = field(default_factory=dict)

    @property
    def by_position(self) -> bool:
        """Whether queries and images need a position."""
        return self.protocol.rule == "metres"

    def truth(self, rows: Sequence[Mapping[str, Any]], known: pa.Table) -> Truth:
        """Return which stored images are right for each query.

        Args:
            rows: The queries, with `uri` and `POSITION_COLUMNS`.
            known: Rows of the store.
        """
        if not self.by_position:
            return FrameTruth(
                rows,
                known,
                query_frames=self.query_frames,
                database_frames=self.database_frames,
                tolerance=int(self.protocol.tolerance),
            )
        located = pa.Table.from_pylist([Position.of(row).to_dict() for row in rows], schema=_POSITIONS)
        return GroundTruth(located, known, self.protocol.tolerance)


def scoring_by_metres(threshold_m: float) -> Scoring:
    """Return the scoring of every query by distance."""
    return Scoring(Protocol(f"metres:{threshold_m:g}", "metres", threshold_m))


def scoring_of(
    protocol: Protocol, layout: Dataset, database: pa.Table, queries: pa.Table, *, keys: Path | None = None
) -> Scoring:
    """Choose the queries of a protocol and check that the data set is the one that it is of.

    Args:
        protocol: The protocol.
        layout: The data set.
        database: Listing of its database.
        queries: Listing of its queries.
        keys: File with the keys of the queries to score.

    Raises:
        BadProtocol: the data set is another one, or nothing says which queries are scored.
    """
    if protocol.subset and database.num_rows != protocol.database:
        protocol.check_counts(layout.queries.parent, database.num_rows, queries.num_rows)
    wanted = keys_for(protocol, layout.queries, queries.num_rows, keys)
    chosen = queries if wanted is None else with_keys(queries, wanted)
    if not chosen.num_rows:
        raise BadProtocol(
            f"none of {queries.num_rows:,} queries in {layout.queries} has one of the {len(wanted or ()):,} "
            "keys: give the keys of this data set"
        )
    if protocol.subset:
        chosen = _with_positive(chosen, database, protocol.tolerance)
    protocol.check_counts(layout.queries.parent, database.num_rows, chosen.num_rows)
    only = None if chosen.num_rows == queries.num_rows else frozenset(chosen["uri"].to_pylist())
    if protocol.rule == "metres":
        return Scoring(protocol, only)
    database_frames, query_frames = frames_of_sides(database, queries, protocol.stride)
    ids = dict(zip(database["uri"].to_pylist(), database["image_id"].to_pylist(), strict=True))
    by_id = {ids[uri]: frame for uri, frame in database_frames.items()}
    return Scoring(protocol, only, query_frames, by_id | database_frames)


def _with_positive(queries: pa.Table, database: pa.Table, threshold_m: float) -> pa.Table:
    """Return the queries with something right in the database: MSLS's official subset has no others."""
    near = nearby(positions_of(queries), positions_of(database), threshold_m)
    return queries.filter(pa.array(np.asarray(near.counts() > 0)))
