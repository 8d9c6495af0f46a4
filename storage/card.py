"""The card of a model or store: what made its vectors. Vectors of different cards are never mixed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from storage.card_values import check_card_values
from storage.errors import CardMismatch, CorruptStore, InvalidBatch
from storage.json_values import parse_object, whole_number
from storage.text import plain

__all__ = [
    "FEATURE_ENCODINGS",
    "FORMAT_VERSION",
    "NO_FEATURES",
    "Card",
    "FeatureEncoding",
    "FeaturePart",
    "Preprocessing",
]

FORMAT_VERSION = 3  # of new stores, and the newest that can be read
_PLAIN_VERSION = 1  # of models, and of stores that placeray 0.1 made with float16 features
_LEARNED_VERSION = 3  # the oldest that has learned artifacts

FeatureEncoding = Literal["float16", "int8", "int8-pca32", "int4", "int4-pca64", "int2", "binary", "none"]
NO_FEATURES: FeatureEncoding = "none"  # the store holds no local features
FEATURE_ENCODINGS: tuple[FeatureEncoding, ...] = tuple(
    name for name in get_args(FeatureEncoding) if name != NO_FEATURES
)

FeaturePart = Literal["value", "key", "query"]
ResizeMode = Literal["pil_bilinear", "tensor_bilinear", "tensor_antialiased"]


@dataclass(frozen=True)
class Preprocessing:
    """How upright RGB pixels become the network's input.

    Attributes:
        resize: `pil_bilinear` is Pillow's antialiased filter on uint8 pixels; `tensor_bilinear` is bilinear
            sampling of the float tensor without antialiasing, as in SelaVPR's published evaluation;
            `tensor_antialiased` is bilinear filtering of the float tensor whose support grows with the
            reduction, without rounding, as in SelaVPR++'s (it normalises first, which commutes).
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
    """Which model makes vectors, in which shape, and how a store keeps them.

    The model part are the fields that the model decides alone: `model`, `weights_sha256`, `preprocessing`,
    `grid_height`, `grid_width`, `feature_dim`, `feature_dtype`, `metric`, `code_bits`, `feature_layer`,
    `feature_part`, `attended_share`, and `descriptor_dim` unless an aggregation makes the descriptors. The
    others are the store's.

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
            `float16` on a model's own card, because the model's output does not depend on it; `none` in a
            store without local features.
        projection_sha256: Digest of the store's learned projection; None if the encoding has none.
        aggregation_sha256: Digest of the artifact that makes the store's descriptors, of width
            `descriptor_dim`, out of local features; None where they are the model's own.
        local_whitening_sha256: Digest of the artifact with the (C, C) map that is applied to local features
            before they are encoded; None without one.
        code_bits: Bits of the binary code that the model gives an image beside its descriptor, a multiple of
            eight; None: it gives none.
        feature_layer: Index of the transformer block whose attention gives the local features; None: they are
            the model's own, the output of its last layer or of a head.
        feature_part: Which vectors of that attention they are.
        attended_share: Share of the cells that are kept, those that the class token attends to most; the
            others are zeros.
        aggregation: What training found best for the descriptors of the model's stores, `learned` or `gem`;
            None: the default of the architecture.
        score: What training found best to rank candidates by, `votes` or `count`; None: as above.
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
    aggregation_sha256: str | None = None
    local_whitening_sha256: str | None = None
    code_bits: int | None = None
    feature_layer: int | None = None
    feature_part: FeaturePart | None = None
    attended_share: float | None = None
    aggregation: Literal["learned", "gem"] | None = None
    score: Literal["votes", "count"] | None = None

    @property
    def has_features(self) -> bool:
        """Whether a store with this card holds local features."""
        return self.feature_encoding != NO_FEATURES

    @property
    def artifacts(self) -> tuple[str, ...]:
        """Digests of the artifacts that the card names."""
        return tuple(digest for name in _LEARNED_FIELDS if (digest := getattr(self, name)) is not None)

    @property
    def sha256(self) -> str:
        """The digest of `to_json()`, under which a store keeps the card."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def stored_as(
        self,
        encoding: FeatureEncoding,
        *,
        projection_sha256: str | None = None,
        aggregation_sha256: str | None = None,
        local_whitening_sha256: str | None = None,
        descriptor_dim: int | None = None,
    ) -> Card:
        """Return this card for a new store.

        Args:
            encoding: Its feature encoding.
            projection_sha256: See the attribute; likewise the following two.
            aggregation_sha256: See the attribute.
            local_whitening_sha256: See the attribute.
            descriptor_dim: D of an aggregation; None keeps the width.

        Raises:
            InvalidBatch: there is no such encoding, or it does not suit the model's features.
        """
        if encoding not in (known := (*FEATURE_ENCODINGS, NO_FEATURES)):
            raise InvalidBatch(f"unknown feature encoding {encoding!r}: choose one of {', '.join(known)}")
        if not self.feature_dim and encoding != NO_FEATURES:
            raise InvalidBatch(
                f"{self.model} gives no local features to keep as {encoding}: leave --features out, or "
                "describe them in the model file"
            )
        if encoding == "binary" and self.attended_share not in (None, 1.0):
            raise InvalidBatch(
                "binary features cannot tell cells that were left out from others: choose int2 or another "
                "encoding with --features"
            )
        return dataclasses.replace(
            self,
            format_version=FORMAT_VERSION,
            feature_encoding=encoding,
            projection_sha256=projection_sha256,
            aggregation_sha256=aggregation_sha256,
            local_whitening_sha256=local_whitening_sha256,
            descriptor_dim=descriptor_dim or self.descriptor_dim,
        )

    def upgraded(self) -> Card:
        """Return this card in the newest format, which says the same of the vectors."""
        return dataclasses.replace(self, format_version=FORMAT_VERSION)

    def to_json(self) -> str:
        """Return the card as JSON text with sorted keys, ending in a newline.

        Cards of formats 1 and 2 are written without later fields, and those of float16 features without the
        encoding, so that the versions of placeray that made them can read them. Fields that few models have
        are left out by the cards of the others, whose digests stay what they were.
        """
        values = dataclasses.asdict(self)
        if self.format_version < _LEARNED_VERSION:
            hidden = _ENCODING_FIELDS if self.feature_encoding == "float16" else ()
            for name in (*_LEARNED_FIELDS, *hidden):
                del values[name]
        for name in (*_RARE_FIELDS, *_TRAINED_FIELDS):
            if values[name] is None:
                del values[name]
        return json.dumps(values, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Card:
        """Parse a card.

        Raises:
            CardMismatch: the card has a newer format, or fields of one.
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
            _check_names(values, cls)
            _check_names(values["preprocessing"], Preprocessing, "preprocessing.")
            if values.get("feature_encoding", "float16") not in (*FEATURE_ENCODINGS, NO_FEATURES):
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
        names = (field.name for field in dataclasses.fields(self) if field.name != "format_version")
        self._require(other, names, whose="requested is")

    def require_model(self, other: Card) -> None:
        """Check that a model may be used with this store, whatever the store makes of its output.

        Raises:
            CardMismatch: a field of the model part differs; the message names each.
        """
        names = _MODEL_FIELDS if self.aggregation_sha256 else (*_MODEL_FIELDS, "descriptor_dim")
        self._require(other, names, whose="model has")

    def require_same_features(self, other: Card) -> None:
        """Check that local features of two versions of a store may be mixed, whatever its descriptors.

        Raises:
            CardMismatch: the model differs, or how local features are kept; the message names each field.
        """
        names = [*_MODEL_FIELDS, "min_similarity", *_ENCODING_FIELDS, "local_whitening_sha256"]
        if self.aggregation_sha256 is None and other.aggregation_sha256 is None:
            names.append("descriptor_dim")
        self._require(other, names, whose="other is")

    def _require(self, other: Card, compared: Iterable[str], *, whose: str) -> None:
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        names = [name for name in compared if mine[name] != theirs[name]]
        if not names:
            return
        different = "; ".join(f"{name}: store has {mine[name]!r}, {whose} {theirs[name]!r}" for name in names)
        if set(names) <= set(_ENCODING_FIELDS):
            raise CardMismatch(
                f"the store has another feature encoding: {different}. Omit --features to use the store's "
                "own, or index into a new store"
            )
        kept = {*_ENCODING_FIELDS, *_LEARNED_FIELDS}
        if self.aggregation_sha256 or other.aggregation_sha256:
            kept.add("descriptor_dim")
        if set(names) <= kept:
            raise CardMismatch(
                f"the store keeps vectors in another form: {different}. Use the store's own, or index into a "
                "new store"
            )
        raise CardMismatch(
            f"the store was made by another model: {different}. Use the store's own model, or index into a "
            "new store"
        )


_ENCODING_FIELDS = ("feature_encoding", "projection_sha256")
_LEARNED_FIELDS = ("aggregation_sha256", "local_whitening_sha256")
_RARE_FIELDS = ("code_bits", "feature_layer", "feature_part", "attended_share")
_TRAINED_FIELDS = ("aggregation", "score")
_MODEL_FIELDS = (
    *("model", "weights_sha256", "preprocessing", "grid_height", "grid_width", "feature_dim"),
    *("feature_dtype", "metric", *_RARE_FIELDS),
)


def _check_names(values: dict[str, Any], kind: type[Card | Preprocessing], prefix: str = "") -> None:
    """Refuse fields that only a newer placeray can have written."""
    unknown = sorted(set(values) - {field.name for field in dataclasses.fields(kind)})
    if unknown:
        shown = ", ".join(plain(prefix + name, 60) for name in unknown[:3])
        raise CardMismatch(
            f"the card was made by a newer placeray: it has {len(unknown)} unknown fields ({shown}): "
            "upgrade placeray"
        )
