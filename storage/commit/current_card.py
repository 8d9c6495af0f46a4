"""Which card a committed version has. One replacement of COMMITTED moves both, the version and its card."""

from __future__ import annotations

from storage.card import Card
from storage.card_files import card_path, first_card, read_card
from storage.commit.ledger import Committed
from storage.commit.pointed_version import pointed_version
from storage.errors import CardMismatch, CorruptStore, repair_command
from storage.objects.files import Location
from storage.table.open_table import Table
from storage.table.schema import check_schema

__all__ = ["card_of", "check_table", "current_card"]


def current_card(folder: Location, at: str | None = None) -> Card:
    """Return the card of the acknowledged version; that of card.json if nothing was committed yet.

    Args:
        folder: The store's folder.
        at: A tag: of the version that it names.

    Raises:
        StoreNotFound: there is no store.
        CardMismatch: the store has a newer format.
        NotReadable: this user may not read it.
        CorruptStore: a card or COMMITTED cannot be read, or links stand where the store's own files belong.
    """
    first = first_card(folder)
    committed = pointed_version(folder, at)
    return first if committed is None else card_of(folder, committed.card_sha256, first)


def card_of(folder: Location, sha256: str | None, first: Card) -> Card:
    """Return the card of a version.

    Args:
        folder: The store's folder.
        sha256: The digest that the version names, or None.
        first: The card in card.json.

    Raises:
        CardMismatch: the card has a newer format.
        CorruptStore: the card cannot be read, or is of another model than card.json.
    """
    if sha256 is None:
        return first
    card = read_card(folder, sha256)
    try:
        first.require_same_features(card)
    except CardMismatch as error:
        raise CorruptStore(
            f"{card_path(folder, sha256)} and card.json are not of one store ({error}): restore both from a "
            "backup"
        ) from error
    return card


def check_table(table: Table, committed: Committed, card: Card) -> None:
    """Check that a committed version has the columns of its card and names the card that COMMITTED names.

    Raises:
        CorruptStore: it does not.
    """
    check_schema(table.schema, card)
    if table.card_sha256 != committed.card_sha256:
        raise CorruptStore(
            f"{table.folder}: version {committed.version} and COMMITTED name different cards: "
            f"{repair_command(table.folder)}"
        )
