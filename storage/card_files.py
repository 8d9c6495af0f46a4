"""The cards of a store on disk: card.json, and one file for each version's card, named by its digest."""

from __future__ import annotations

from storage.artifacts import named_file, read_named, write_named
from storage.card import Card
from storage.errors import CorruptStore, StoreNotFound
from storage.layout import CARD_FILE, CARDS_FOLDER, check_layout
from storage.objects.files import Location, read_bounded, write_file

__all__ = ["card_path", "first_card", "read_card", "write_card", "write_first_card"]

_CARD_BYTES = 1 << 20
_SUFFIX = ".json"


def first_card(folder: Location) -> Card:
    """Return the card in card.json: of the versions that name no card of their own.

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


def write_first_card(folder: Location, card: Card) -> None:
    """Replace card.json; in format 3 also write the card under its digest, first."""
    if card.format_version >= 3:
        write_card(folder, card)
    write_file(folder / CARD_FILE, card.to_json().encode())


def write_card(folder: Location, card: Card) -> str:
    """Write a card under its digest, durably, and return the digest.

    Raises:
        OutOfSpace: the disk is full.
        NotWritable: the store is on a read-only file system, or belongs to another user.
    """
    return write_named(folder / CARDS_FOLDER, card.to_json().encode(), suffix=_SUFFIX)


def read_card(folder: Location, sha256: str | None) -> Card:
    """Return the card of a version.

    Args:
        folder: The store's folder.
        sha256: Digest of the card that the version names, or None: card.json.

    Raises:
        StoreNotFound: there is no store.
        CardMismatch: the card has a newer format.
        CorruptStore: the card cannot be read.
        NotReadable: this user may not read it.
    """
    if sha256 is None:
        return first_card(folder)
    card = Card.from_json(read_named(folder / CARDS_FOLDER, sha256, max_bytes=_CARD_BYTES, suffix=_SUFFIX))
    if card.sha256 != sha256:
        raise CorruptStore(
            f"{card_path(folder, sha256)} is not as placeray writes it: restore it from a backup"
        )
    return card


def card_path(folder: Location, sha256: str) -> Location:
    """Return the path of a card that is named by its digest."""
    return named_file(folder / CARDS_FOLDER, sha256, _SUFFIX)
