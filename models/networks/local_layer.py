"""Which layer of a vision transformer gives local features where no head was trained for them. No torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.card import Card, FeaturePart

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["LocalLayer", "late_layer"]

_ATTENDED_SHARE = 0.5
_FLOOR = 0.65


@dataclass(frozen=True)
class LocalLayer:
    """Local features out of the attention of one block, filtered by the class token's attention.

    Tzachor et al., "EffoVPR: Effective Foundation Model Utilization for Visual Place Recognition", ICLR 2025,
    section 3.2: values of a late layer of an untrained DINOv2 match better than its last tokens.

    Attributes:
        layer: Index of the block, from 0.
        part: Which of the attention's three vectors.
        attended_share: Share of the cells that is kept, those that the class token attends to most; the
            others become zeros, which match nothing above `min_similarity`.
        min_similarity: Mutual neighbours below this cosine similarity are not counted; above 0.
    """

    layer: int
    part: FeaturePart = "value"
    attended_share: float = _ATTENDED_SHARE
    min_similarity: float = _FLOOR

    def on(self, card: Card) -> Card:
        """Return a model's card that says where its local features come from."""
        return dataclasses.replace(
            card,
            feature_layer=self.layer,
            feature_part=self.part,
            attended_share=self.attended_share,
            min_similarity=self.min_similarity,
        )

    @classmethod
    def of_card(cls, card: Card) -> LocalLayer | None:
        """Return what a card says; None: its local features are the model's own."""
        if card.feature_layer is None:
            return None
        floor = _FLOOR if card.min_similarity is None else card.min_similarity
        return cls(card.feature_layer, card.feature_part or "value", card.attended_share or 1.0, floor)

    @classmethod
    def of_values(cls, values: Mapping[str, Any], depth: int) -> LocalLayer:
        """Return what a mapping with any of the attributes says; `layer` may count from the end."""
        known = dict(values)
        layer = int(known.pop("layer", depth - 2))
        return cls(layer % depth if -depth <= layer < depth else layer, **known)


def late_layer(depth: int) -> LocalLayer:
    """Return the default for a transformer of so many blocks: values of the block before the last."""
    return LocalLayer(max(0, depth - 2))
