"""The card of a model or store: what made its vectors. Vectors of different cards are never mixed."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from storage.card_values import check_card_values
from storage.errors import CardMismatch, CorruptStore, InvalidBatch, StoreNotFound
from storage.json_values import parse_object, whole_number
from storage.layout import check_layout, read_bounded

__all__ = [
    "CARD_FILE",
    "FEATURE_ENCODINGS",
    "FORMAT_VERSION",
    "Card",
    "FeatureEncoding",
    "Preprocessing",
    "read_card",
]

CARD_FILE = "card.json"
_CARD_BYTES = 1 << 20

FORMAT_VERSION = 2  # the newest that can be read
_PLAIN_VERSION, _ENCODED_VERSION = 1, 2  # the oldest for float16 features, and for other encodings

FeatureEncoding = Literal["float16", "int8", "int8-pca32", "int4", "int4-pca64", "int2", "binary"]
FEATURE_ENCODINGS: tuple[FeatureEncoding, ...] = get_args(FeatureEncoding)

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
    """Which model makes vectors, in which shape, and how a store encodes them.

    Attributes:
        model: Architecture name, such as `efficientnet-lite0` or `selavpr-vitl14`.
        weights_sha256: Digest over every tensor of the model (name, dtype, shape, values).
        preprocessing: How pixels become input.
        descriptor_dim: D, the width of the global descriptor.
        descriptor_dtype: How descriptors are stored.
        grid_height: H, rows of the local-feature grid.
        grid_width: W, columns of the local-feature grid.
        feature_dim: C, channels of one local feature.
        feature_dtype: Type of local features as extracted, before they are encoded.
        metric: Similarity of descriptors, which have unit L2 norm.
        min_similarity: Mutual neighbours below this cosine similarity are not counted; None counts all.
        format_version: Version of the store format.
        feature_encoding: How a store encodes local features, see `storage.features.encodings`. Always
            `float16` on a model's own card, because the model's output does not depend on it.
        projection_sha256: Digest of the store's learned projection; None if the encoding has none.
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
    format_version: int = _PLAIN_VERSION
    feature_encoding: FeatureEncoding = "float16"
    projection_sha256: str | None = None

    def stored_as(self, encoding: FeatureEncoding, *, projection_sha256: str | None = None) -> Card:
        """Return this card for a store with another feature encoding.

        Raises:
            InvalidBatch: there is no such encoding.
        """
        if encoding not in FEATURE_ENCODINGS:
            raise InvalidBatch(
                f"unknown feature encoding {encoding!r}: choose one of {', '.join(FEATURE_ENCODINGS)}"
            )
        return dataclasses.replace(
            self,
            format_version=_PLAIN_VERSION if encoding == "float16" else _ENCODED_VERSION,
            feature_encoding=encoding,
            projection_sha256=projection_sha256,
        )

    def to_json(self) -> str:
        """Return the card as JSON text with sorted keys, ending in a newline.

        A card of float16 features is written without the fields of format version 2, so that older versions
        of placeray can read it.
        """
        values = dataclasses.asdict(self)
        for name in _ENCODING_FIELDS if self.feature_encoding == "float16" else ():
            del values[name]
        return json.dumps(values, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Card:
        """Parse a card.

        Raises:
            CardMismatch: the card has a newer format.
            CorruptStore: the text is not a card.
        """
        try:
            values = parse_object(text)
            version = whole_number(values["format_version"], 1, 10**6)
            if version > FORMAT_VERSION:
                raise CardMismatch(
                    f"card has format version {version}, this placeray reads up to {FORMAT_VERSION}: "
                    "upgrade placeray"
                )
            if values.get("feature_encoding", "float16") not in FEATURE_ENCODINGS:
                raise CorruptStore(
                    f"the card has the unknown feature encoding {str(values['feature_encoding'])[:60]!r}: "
                    "restore card.json from a backup"
                )
            check_card_values(values)
            pre = values.pop("preprocessing")
            pre["mean"], pre["std"] = tuple(pre["mean"]), tuple(pre["std"])
            return cls(preprocessing=Preprocessing(**pre), **values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptStore(
                f"the card cannot be read ({type(error).__name__}: {error}): restore card.json from a backup"
            ) from error

    def require_same(self, other: Card) -> None:
        """Check that vectors of two stores may be mixed.

        Raises:
            CardMismatch: any field except the format version differs; the message names each.
        """
        self._require(other, ignored=("format_version",), whose="requested is")

    def require_model(self, other: Card) -> None:
        """Check that a model may be used with this store, whatever its feature encoding.

        Raises:
            CardMismatch: any field except the format version and the feature encoding differs; the message
                names each.
        """
        self._require(other, ignored=("format_version", *_ENCODING_FIELDS), whose="model has")

    def _require(self, other: Card, *, ignored: tuple[str, ...], whose: str) -> None:
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        names = [name for name in mine if name not in ignored and mine[name] != theirs[name]]
        if not names:
            return
        different = "; ".join(f"{name}: store has {mine[name]!r}, {whose} {theirs[name]!r}" for name in names)
        if set(names) <= set(_ENCODING_FIELDS):
            raise CardMismatch(
                f"the store has another feature encoding: {different}. Omit --features to use the store's "
                "own, or index into a new store"
            )
        raise CardMismatch(
            f"the store was made by another model: {different}. Use the store's own model, or index into a "
            "new store"
        )


_ENCODING_FIELDS = ("feature_encoding", "projection_sha256")


def read_card(folder: Path) -> Card:
    """Return the card of the store in `folder`.

    Raises:
        StoreNotFound: there is no store.
        CardMismatch: the store has a newer format.
        NotReadable: this user may not read it.
        CorruptStore: the card cannot be read, or links or foreign files stand where the store's own belong.
    """
    try:
        text = read_bounded(folder / CARD_FILE, _CARD_BYTES)
    except FileNotFoundError:
        raise StoreNotFound(
            f"{folder} contains no store: create one with placeray index SOURCE --store {folder}"
        ) from None
    check_layout(folder)
    return Card.from_json(text)
