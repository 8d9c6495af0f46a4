"""The card: what made the vectors. Vectors of different cards never mix."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from storage.errors import CardMismatch, CorruptStore

__all__ = ["FORMAT_VERSION", "Card", "Preprocessing"]

FORMAT_VERSION = 1

ResizeMode = Literal["pil_bilinear", "tensor_bilinear"]


@dataclass(frozen=True)
class Preprocessing:
    """How upright RGB pixels become the network's input.

    Attributes:
        resize: `pil_bilinear` is Pillow's antialiased filter on uint8 pixels; `tensor_bilinear` is bilinear
            sampling of the float tensor without antialiasing, as in SelaVPR's published evaluation.
        height: Input height in pixels.
        width: Input width in pixels.
        mean: Subtracted from each channel of pixels scaled to 0..1.
        std: Divides each channel afterwards.
    """

    resize: ResizeMode
    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Card:
    """What made the vectors of a store or comes out of a model.

    Attributes:
        model: Architecture name, such as `efficientnet-lite0` or `selavpr-vitl14`.
        weights_sha256: Digest over every tensor of the model (name, dtype, shape, values).
        preprocessing: How pixels become input.
        descriptor_dim: D, the width of the global descriptor.
        descriptor_dtype: How descriptors are stored.
        grid_height: H, rows of the local-feature grid.
        grid_width: W, columns of the local-feature grid.
        feature_dim: C, channels of one local feature.
        feature_dtype: How local features are stored.
        metric: How descriptors compare; both sides have unit L2 norm.
        min_similarity: Only mutual neighbours of at least this cosine similarity count; None counts all.
        format_version: Version of the store format that this card belongs to.
    """

    model: str
    weights_sha256: str
    preprocessing: Preprocessing
    descriptor_dim: int
    grid_height: int
    grid_width: int
    feature_dim: int
    min_similarity: float | None
    descriptor_dtype: Literal["float16", "float32"] = "float16"
    feature_dtype: Literal["float16"] = "float16"
    metric: Literal["cosine"] = "cosine"
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """Return the card as JSON text with sorted keys, ending in a newline."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Read a card back.

        Raises:
            CardMismatch: the card was written by a newer format.
            CorruptStore: the text is no card.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            version = int(values["format_version"])
            if version > FORMAT_VERSION:
                raise CardMismatch(
                    f"card has format version {version}, this placeray reads up to {FORMAT_VERSION}: "
                    "upgrade placeray"
                )
            pre = values.pop("preprocessing")
            pre["mean"], pre["std"] = tuple(pre["mean"]), tuple(pre["std"])
            return cls(preprocessing=Preprocessing(**pre), **values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptStore(
                f"the card cannot be read ({type(error).__name__}: {error}): restore card.json from a backup"
            ) from error

    def require_same(self, other: Card) -> None:
        """Refuse to mix vectors of two cards.

        Raises:
            CardMismatch: any field but the format version differs; the message names each.
        """
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        different = [
            f"{name}: store has {mine[name]!r}, model has {theirs[name]!r}"
            for name in mine
            if name != "format_version" and mine[name] != theirs[name]
        ]
        if different:
            raise CardMismatch(
                "the store was made by another model: "
                + "; ".join(different)
                + ". Use the store's own model, or index into a new store"
            )
