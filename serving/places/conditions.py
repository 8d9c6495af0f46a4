"""What changes the scores of answers: a calibration holds for these values alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.matching_options import Matching
from storage.card import Card

__all__ = ["ScoreConditions"]

_DIGITS = 12  # of a digest in a sentence


@dataclass(frozen=True, kw_only=True)
class ScoreConditions:
    """Everything that changes a score, by the names in which a sentence tells them.

    The search method is not among them, see `serving.places.calibration.Calibration`.

    Attributes:
        weights: Digest of the model's weights.
        aggregation: Digest of what makes the descriptors; None: the model.
        features: Encoding of local features.
        projection: Digest of their projection, or None.
        whitening: Digest of their whitening, or None.
        image_size: Height and width of the network's input.
        min_similarity: Of counted matches, or None.
        score: `votes` or `count`; `similarity` where nothing is re-ranked.
        candidates: How many hits are re-ranked; 0: none.
        matching: `exact` or `fast`.
        stop_early: Whether candidates are skipped once one leads.
        budget_ms: Time for matching, or None.
        precision: What the network computes in.
    """

    weights: str
    aggregation: str | None
    features: str
    projection: str | None
    whitening: str | None
    image_size: tuple[int, int]
    min_similarity: float | None
    score: str
    candidates: int
    matching: str
    stop_early: bool
    budget_ms: float | None
    precision: str

    @classmethod
    def of(
        cls, card: Card, matching: Matching, *, candidates: int, rerank: bool, precision: str
    ) -> ScoreConditions:
        """Return the conditions of a query.

        Args:
            card: Of the version that is searched.
            matching: Options of matching.
            candidates: How many hits are re-ranked.
            rerank: Whether they are.
            precision: What the network computes in, such as `float32`.
        """
        return cls(
            weights=card.weights_sha256,
            aggregation=card.aggregation_sha256,
            features=card.feature_encoding,
            projection=card.projection_sha256,
            whitening=card.local_whitening_sha256,
            image_size=(card.preprocessing.height, card.preprocessing.width),
            min_similarity=card.min_similarity,
            score=matching.score_of(card) if rerank else "similarity",
            candidates=candidates if rerank else 0,
            matching=matching.precision if rerank else "exact",
            stop_early=matching.stop_early and rerank,
            budget_ms=matching.budget_ms if rerank else None,
            precision=precision,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON."""
        return {**dataclasses.asdict(self), "image_size": list(self.image_size)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ScoreConditions:
        """Read the values of a file that may be anybody's; they are only compared.

        Raises:
            ValueError: a value is missing.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if not all(name in values for name in names) or not isinstance(values["image_size"], list):
            raise ValueError("conditions are missing")
        read = {name: values[name] for name in names}
        return cls(**{**read, "image_size": tuple(read["image_size"])})

    def difference(self, other: ScoreConditions) -> str | None:
        """Return the first difference, such as `candidates 30 instead of 100`; None: there is none."""
        for field in dataclasses.fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if mine != theirs:
                return f"{field.name} {_shown(mine)} instead of {_shown(theirs)}"
        return None


def _shown(value: object) -> str:
    text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text[:_DIGITS] if len(text) == 64 else text[:40]
