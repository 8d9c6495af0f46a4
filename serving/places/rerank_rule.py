"""When re-ranking helps: for all queries, for none, or for those whose first stage is in doubt.

Matching local features lifts a weak first stage and can harm a strong one. The margin of the first stage is
the similarity of its first hit minus that of the most similar hit elsewhere; where it is clear, matching
changes nothing and is skipped. `calibrate` finds the rule on labelled photos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from serving.places.evidence import ELSEWHERE_M
from storage.json_values import finite_number
from storage.position import Positions
from storage.records import Candidate

__all__ = ["RerankMode", "RerankRule", "blended", "first_margin"]

Floats = NDArray[np.float64]
RerankMode = Literal["all", "none", "below"]

_MAX_BLEND = 10.0


@dataclass(frozen=True)
class RerankRule:
    """What `--rerank auto` does.

    Attributes:
        mode: `all` and `none` re-rank every query or none, `below` those with a smaller margin.
        margin: Of the first stage, for `below`.
        blend: How many standard deviations of the score one of the similarity counts as; 0: score alone.
        ms_per_query: What matching took per query when the rule was found.
    """

    mode: RerankMode
    margin: float = 0.0
    blend: float = 0.0
    ms_per_query: float = 0.0

    @property
    def selects(self) -> bool:
        """Whether answers are others than where every query is re-ranked and ordered by its scores."""
        return self.mode != "all" or self.blend > 0

    def skips(self, hits: Sequence[Candidate]) -> bool:
        """Return whether the hits of a query, most similar first, are left as they are."""
        return self.leaves(first_margin(hits) if self.mode == "below" else 0.0)

    def leaves(self, margin: float) -> bool:
        """Return whether a query with this margin of the first stage is left as it is."""
        if self.mode != "below":
            return self.mode == "none"
        return margin >= self.margin

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON."""
        return {**vars(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RerankRule:
        """Read the values of a file that may be anybody's.

        Raises:
            ValueError: they are not such values.
        """
        if values.get("mode") not in get_args(RerankMode):
            raise ValueError("the rule of re-ranking is none: calibrate again")
        return cls(
            values["mode"],
            finite_number(values.get("margin"), -2.0, 2.0),
            finite_number(values.get("blend"), 0.0, _MAX_BLEND),
            finite_number(values.get("ms_per_query"), 0.0, 1e9),
        )


def first_margin(hits: Sequence[Candidate]) -> float:
    """Return the margin of the first stage; 0 where positions do not tell what is elsewhere."""
    if not hits:
        return 0.0
    away_m = Positions.of([hit.record.position for hit in hits]).distances_m(hits[0].record.position)
    rivals = [hit.similarity for hit, metres in zip(hits, away_m, strict=True) if metres > ELSEWHERE_M]
    return hits[0].similarity - max(rivals) if rivals else 0.0


def blended(scores: Floats, similarity: Floats, blend: float) -> Floats:
    """Return scores with some of the similarity added, both in standard deviations of the candidates.

    Args:
        scores: (K,).
        similarity: (K,).
        blend: Share of the similarity.
    """
    return _standard(scores) + blend * _standard(similarity)


def _standard(values: Floats) -> Floats:
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros(len(values))
