"""What every model needs, makes and is known for. Imports no torch: nothing is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from models.card import Describes, make_card
from models.names import DEFAULT_MODEL, SELAVPR_MODELS, SELAVPRPP_MODELS
from models.networks.architecture import Architecture
from models.networks.descriptions import EfficientNetDescription, SelaVPRDescription
from models.networks.selavprpp_description import SelaVPRppDescription
from storage.card import Card
from storage.features.encodings import FeatureCodec, default_encoding

__all__ = ["OTHERS", "KnownModel", "catalogue", "known_model"]

_ANY_DIGEST = "0" * 64
LEARNED_DIM = 512  # of `models.aggregation`
_PLUS = {"b": (12, 2048), "l": (16, 4096)}
_UNTRAINED = "trained adapters and local head: placeray finetune, or import-weights"
_PUBLISHED = {
    "selavpr-vitl14": "R@1 92.8 Pitts30k, 90.8 MSLS-val, 94.0 Tokyo 24/7 (ICLR 2024, trained, 224 px)",
    "selavprpp-vitb14": "R@1 93.3 Pitts30k, 94.5 MSLS-val, 94.6 Nordland 27k (TPAMI 2026, code + float)",
    "selavprpp-vitl14": "R@1 94.4 Pitts30k, 94.5 MSLS-val, 97.2 Nordland 27k (TPAMI 2026, code + float)",
}
# Published models that a model file describes: name, needs, descriptor, input, licence, figures.
OTHERS = (
    ("MegaLoc", "hub, model file", 8448, "multiples of 14", "MIT", "R@1 94.1 Pitts30k, 91.0 MSLS-val"),
    ("BoQ (DINOv2)", "hub, model file", 12288, "322x322", "MIT", "R@1 93.7 Pitts30k, 93.8 MSLS-val"),
    ("ImAge", "hub, model file", 6144, "multiples of 14", "MIT", "R@1 94.1 Pitts30k, 94.5 MSLS-val"),
    ("EigenPlaces", "hub, model file", 2048, "512x512", "MIT", "R@1 92.5 Pitts30k, 85.9 MSLS-val"),
    ("SALAD", "hub, model file", 8448, "322x322", "GPL-3.0", "R@1 92.3 Pitts30k, 92.2 MSLS-val"),
)


@dataclass(frozen=True)
class KnownModel:
    """One row of the list of models.

    Attributes:
        name: As --model takes it, or the name of a published one.
        needs: What it takes to use it.
        descriptor_dim: Width of a store's descriptor by default.
        descriptor_bytes: Of one image in a store, the code included.
        code_bits: Bits of its code, or None.
        feature_bytes: Local features of one image in a store's default encoding; 0: none; None: unknown.
        input: Size of its input in pixels.
        licence: Of its weights.
        published: Figures with their protocol, or empty.
        loads: Whether `--bench` can load it by its name.
    """

    name: str
    needs: str
    descriptor_dim: int
    descriptor_bytes: int
    code_bits: int | None
    feature_bytes: int | None
    input: str
    licence: str
    published: str = ""
    loads: bool = False


def catalogue() -> list[KnownModel]:
    """Return every model by name, then published ones that take a model file."""
    rows = [
        known_model(
            DEFAULT_MODEL,
            _card(EfficientNetDescription()),
            needs="nothing",
            licence="Apache-2.0",
            learned=True,
        )
    ]
    for name, (size, registers, _) in SELAVPR_MODELS.items():
        described = SelaVPRDescription(Architecture.of_size(size, registers=registers), local_head=False)
        card = _card(described)
        if described.local_layer is not None:
            card = described.local_layer.on(card)
        rows.append(
            known_model(name, card, needs=f"timm's hub; {_UNTRAINED}", licence="Apache-2.0", learned=True)
        )
    for name, (size, _, _) in SELAVPRPP_MODELS.items():
        adapters, dim = _PLUS[size]
        described_plus = SelaVPRppDescription(Architecture.of_size(size), adapters, dim, 512)
        needs = "the authors' file: placeray import-weights; timm's hub"
        rows.append(
            known_model(name, _card(described_plus), needs=needs, licence="MIT", learned=False, loads=False)
        )
    for name, needs, dim, size, licence, published in OTHERS:
        rows.append(KnownModel(name, needs, dim, 2 * dim, None, 0, size, licence, published))
    return rows


def known_model(
    name: str, card: Card, *, needs: str, licence: str, learned: bool, loads: bool = True
) -> KnownModel:
    """Return the row of a model from its card.

    Args:
        name: As --model takes it.
        card: Of the model.
        needs: What it takes to use it.
        licence: Of its weights.
        learned: Whether stores learn their descriptors from its local features by default.
        loads: Whether it can be loaded by its name.
    """
    stored = card.stored_as(default_encoding(card))
    dim = LEARNED_DIM if learned else card.descriptor_dim
    pre = card.preprocessing
    return KnownModel(
        name=name,
        needs=needs,
        descriptor_dim=dim,
        descriptor_bytes=2 * dim + (card.code_bits or 0) // 8,
        code_bits=card.code_bits,
        feature_bytes=_row_bytes(stored),
        input=f"{pre.height}x{pre.width}",
        licence=licence,
        published=_PUBLISHED.get(name, ""),
        loads=loads,
    )


def _row_bytes(card: Card) -> int | None:
    return None if "pca" in card.feature_encoding else FeatureCodec(card).row_bytes


def _card(described: Describes) -> Card:
    return make_card(described, weights_sha256=_ANY_DIGEST)
