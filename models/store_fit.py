"""Flags that must fit the store they are given with: one table, and the check that every command makes.

A store keeps to one model, one input size and one encoding. Where a flag asks for another one, nothing is
read, written or answered: figures of one setting must never be shown as those of another.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from models.custom.reference import CUSTOM, TIMM, shown
from models.errors import BadImageSize, UnknownModel
from models.names import MODEL_NAMES
from models.networks.local_layer import LocalLayer
from models.runtime.execution import AS_USUAL, Execution
from storage.card import Card
from storage.errors import CardMismatch

if TYPE_CHECKING:
    from models.extractor import Extractor

__all__ = ["FITS", "Fit", "fitting_card", "fitting_extractor", "named_model", "require_fit"]

_SHOWN_DIGITS = 12  # of a digest
_Loaded = TypeVar("_Loaded")


@dataclass(frozen=True)
class Fit:
    """How a flag is compared with a store.

    Attributes:
        what: The property of the store, in words.
        of_card: Returns the property from a card, as text.
        of_value: Returns the value of the flag as text of the same form; None: it takes loading a model.
    """

    what: str
    of_card: Callable[[Card], str]
    of_value: Callable[[Any], str] | None = str


def _size(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))


def _aggregation_of(card: Card) -> str:
    return "gem" if card.aggregation_sha256 is None else "learned"


def _aggregation_text(chosen: str) -> str:
    """Return a choice as it is; a file's digest is compared where the file is read."""
    return chosen if chosen in ("gem", "learned") else "learned"


# Name of the flag, the setting and the argument -> property of the card. A flag that names something the card
# fixes belongs here; tests/pipelines/cli/test_store_flags.py refuses one that nobody has thought about.
FITS: Mapping[str, Fit] = {
    "image_size": Fit(
        "input size", lambda card: _size((card.preprocessing.height, card.preprocessing.width)), _size
    ),
    "features": Fit("encoding of local features", lambda card: card.feature_encoding),
    "aggregation": Fit("aggregation", _aggregation_of, _aggregation_text),
    "model": Fit(
        "model", lambda card: f"{card.model} (weights {card.weights_sha256[:_SHOWN_DIGITS]})", of_value=None
    ),
}


def require_fit(store_uri: str | os.PathLike[str], card: Card, given: Mapping[str, Any]) -> None:
    """Check that flags fit a store.

    Args:
        store_uri: The store, for the message.
        card: Its card.
        given: Value by name of the flag; None where it is not given. Names without an entry in `FITS` are
            those of flags that no store fixes, and any value fits.

    Raises:
        CardMismatch: a flag does not fit; the message names it, its value and the store's.
        UnknownModel, WeightsUnavailable, WeightsRejected: the named model cannot be loaded.
    """
    for name, fit in FITS.items():
        value = given.get(name)
        if value is None or fit.of_value is None:
            continue
        if (text := fit.of_value(value)) != fit.of_card(card):
            raise _mismatch(store_uri, card, name, text)
    if given.get("aggregation") not in (None, "gem", "learned"):
        _require_file(store_uri, card, given["aggregation"])
    if given.get("model") is not None:
        fitting_card(store_uri, card, given["model"])


def _require_file(store_uri: str | os.PathLike[str], card: Card, path: str) -> None:
    from models.aggregation.choice import read_aggregation

    given = read_aggregation(path)
    # The digest also holds whether the store learns again by itself, which changes no descriptor.
    digests = {dataclasses.replace(given, automatic=automatic).sha256 for automatic in (True, False)}
    if card.aggregation_sha256 not in digests:
        raise CardMismatch(
            f"--aggregation {path} ({given.sha256[:_SHOWN_DIGITS]}) is not the aggregation of the store "
            f"{os.fspath(store_uri)} ({str(card.aggregation_sha256)[:_SHOWN_DIGITS]}): leave --aggregation "
            "out to use the store's own, or run placeray relearn --use FILE"
        )


def named_model(card: Card) -> str:
    """Return the model that a store's card names, to be loaded: a name that placeray knows, never a file.

    Raises:
        UnknownModel: it names another one.
    """
    if card.model in MODEL_NAMES or card.model.startswith((TIMM, CUSTOM)):
        return card.model
    raise UnknownModel(
        f"the store was made by {card.model!r}, which is not a model that placeray knows: give the model's "
        "file with --model"
    )


def fitting_card(store_uri: str | os.PathLike[str], card: Card, model: str | None) -> Card:
    """Return the card of the model for a store, at the store's input size, without building the network.

    Args:
        store_uri: The store, for the message.
        card: Its card.
        model: Name or weights file; None: the name on the card.

    Raises:
        CardMismatch: it is not the model that made the store.
        UnknownModel, WeightsUnavailable, WeightsRejected: the model cannot be loaded.
    """
    from models.weights import load_card

    return _load_fitting(store_uri, card, model, load_card, lambda loaded: loaded)


def fitting_extractor(
    store_uri: str | os.PathLike[str], card: Card, model: str | None, execution: Execution = AS_USUAL
) -> Extractor:
    """Load the model for a store, at the store's input size; arguments and errors as of `fitting_card`."""
    from models.weights import load_extractor

    def load(name: str, **as_stored: Any) -> Extractor:
        return load_extractor(name, execution=execution, **as_stored)

    return _load_fitting(store_uri, card, model, load, lambda loaded: loaded.card)


def _load_fitting(
    store_uri: str | os.PathLike[str],
    card: Card,
    model: str | None,
    load: Callable[..., _Loaded],
    card_of: Callable[[_Loaded], Card],
) -> _Loaded:
    size = (card.preprocessing.height, card.preprocessing.width)
    try:
        loaded = load(model or named_model(card), image_size=size, local=LocalLayer.of_card(card))
    except BadImageSize:  # another model, which does not take the store's input size
        from models.weights import load_card

        raise _other_model(store_uri, card, model, load_card(model or named_model(card))) from None
    try:
        card.require_model(card_of(loaded))
    except CardMismatch as error:
        raise _other_model(store_uri, card, model, card_of(loaded), details=str(error)) from error
    return loaded


def _other_model(
    store_uri: str | os.PathLike[str], card: Card, model: str | None, other: Card, *, details: str = ""
) -> CardMismatch:
    stored, text = (FITS["model"].of_card(one) for one in (card, other))
    if stored == text:
        return CardMismatch(f"the store {os.fspath(store_uri)} does not fit the model {text}: {details}")
    if model is None:
        return CardMismatch(
            f"the store {os.fspath(store_uri)} was made by {stored}, and without --model its name stands for "
            f"{text}: give the weights file that made the store with --model"
        )
    return _mismatch(store_uri, card, "model", f"{shown(model)}, which is {text},")


def _mismatch(store_uri: str | os.PathLike[str], card: Card, name: str, text: str) -> CardMismatch:
    flag, fit = "--" + name.replace("_", "-"), FITS[name]
    return CardMismatch(
        f"{flag} {text} does not fit the store {os.fspath(store_uri)}, whose {fit.what} is "
        f"{fit.of_card(card)}: leave {flag} out to use the store's own, or give another --store"
    )
