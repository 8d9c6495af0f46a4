"""Cards and artifacts of a store: which are damaged, which are named by a version, which no longer are."""

from __future__ import annotations

import re

from storage.artifacts import digests_in, named_file, read_artifact
from storage.card import Card
from storage.card_files import card_path, first_card, read_card
from storage.commit.ledger import manifests
from storage.errors import CardMismatch, CorruptStore, repair_command
from storage.layout import ARTIFACTS_FOLDER, CARDS_FOLDER
from storage.objects.files import Location, file_names
from storage.table.open_table import open_table

__all__ = ["damaged_files", "problems_of", "unnamed_files"]

_TEMPORARY = re.compile(r"\.[0-9a-f]{64}(\.json)?\.\d{1,10}-[0-9a-f]{8}\.tmp", re.ASCII)


def problems_of(folder: Location, card: Card) -> list[str]:
    """Return what is wrong with cards and artifacts, a sentence each.

    Args:
        folder: The store's folder.
        card: The card whose artifacts are needed.
    """
    problems: dict[Location, str] = {}
    for digest in card.artifacts:
        try:
            read_artifact(folder, digest)
        except CorruptStore as error:
            problems[named_file(folder / ARTIFACTS_FOLDER, digest)] = str(error)
    for path in damaged_files(folder):
        problems.setdefault(path, f"{path} is damaged: {repair_command(folder)}")
    return list(problems.values())


def damaged_files(folder: Location) -> list[Location]:
    """Return the cards and artifacts whose contents are not those that their names say."""
    damaged: list[Location] = []
    for digest in digests_in(folder / CARDS_FOLDER, ".json"):
        try:
            read_card(folder, digest)
        except CorruptStore:
            damaged.append(card_path(folder, digest))
        except CardMismatch:
            pass  # of a newer placeray
    for digest in digests_in(folder / ARTIFACTS_FOLDER):
        try:
            read_artifact(folder, digest)
        except CorruptStore:
            damaged.append(named_file(folder / ARTIFACTS_FOLDER, digest))
    return damaged


def unnamed_files(folder: Location) -> list[Location]:
    """Return the cards and artifacts that no existing version names, and temporary files next to them.

    Where a version or its card cannot be read, it is unknown what it names: then everything is kept.
    """
    cards, artifacts = digests_in(folder / CARDS_FOLDER, ".json"), digests_in(folder / ARTIFACTS_FOLDER)
    files = [*_temporary(folder / CARDS_FOLDER), *_temporary(folder / ARTIFACTS_FOLDER)]
    if len(cards) < 2 and not artifacts:
        return files
    try:
        named = {open_table(folder, version=version).card_sha256 for version in manifests(folder)}
        used = {first_card(folder), *(read_card(folder, digest) for digest in named)}
    except CorruptStore:
        return files
    kept = {card.sha256 for card in used} | {digest for card in used for digest in card.artifacts}
    files += [card_path(folder, digest) for digest in cards if digest not in kept]
    files += [named_file(folder / ARTIFACTS_FOLDER, digest) for digest in artifacts if digest not in kept]
    return files


def _temporary(folder: Location) -> list[Location]:
    return [folder / name for name in sorted(file_names(folder)) if _TEMPORARY.fullmatch(name)]
