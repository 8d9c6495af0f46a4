"""Creation of a store: artifacts, card, empty table, the first acknowledged version."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from storage.artifacts import write_artifact
from storage.card import Card
from storage.card_files import first_card, write_first_card
from storage.commit.ledger import acknowledge, manifests
from storage.errors import CorruptStore, InvalidBatch, repair_command
from storage.features.encodings import FeatureCodec
from storage.features.projection import write_projection
from storage.features.whitening import parse_whitening
from storage.layout import CARD_FILE, TABLE_FOLDER
from storage.table.lance_table import LanceTable

__all__ = ["create_store"]


def create_store(
    folder: Path, card: Card, *, projection: npt.NDArray[np.float32] | None, artifacts: Sequence[bytes]
) -> None:
    """Write the artifacts, the card and the empty table, or finish that after a crash; the lease is held.

    Args:
        folder: The store's folder.
        card: Its card.
        projection: (C, C') float32, if the card names one.
        artifacts: The contents of the artifacts that the card names.

    Raises:
        CardMismatch: an unfinished store of another model is in the folder.
        InvalidBatch: the projection or an artifact is not the one named on the card, or is malformed.
        CorruptStore: there are committed versions that no longer say so.
    """
    contents = {hashlib.sha256(data).hexdigest(): data for data in artifacts}
    missing = set(card.artifacts) - set(contents)
    if missing:
        raise InvalidBatch(
            f"the card names the artifact {min(missing)}, which was not given: give the contents of all that "
            "the card names"
        )
    whitening = None
    if card.local_whitening_sha256 is not None:
        whitening = parse_whitening(contents[card.local_whitening_sha256], card.feature_dim)
    codec = FeatureCodec(card, projection=projection, whitening=whitening)
    if codec.projection_sha256 != card.projection_sha256:
        raise InvalidBatch(
            "the projection is not the one named on the card: fit it with storage.features.projection and "
            "put its projection_sha256 on the card"
        )
    if (folder / CARD_FILE).exists():
        # Without rows nothing depends on what was learned, and learning it again may change its last digits.
        learned = ("projection_sha256", "aggregation_sha256", "local_whitening_sha256")
        again = {name: getattr(card, name) for name in learned}
        dataclasses.replace(first_card(folder), **again).require_same(card)
    _discard_unfinished(folder, card)
    if projection is not None:
        write_projection(folder, projection)
    for data in artifacts:
        write_artifact(folder, data)
    write_first_card(folder, card)
    acknowledge(folder, LanceTable.create(folder, card), known=set())


def _discard_unfinished(folder: Path, card: Card) -> None:
    """Remove the empty table that an interrupted attempt made for another card.

    Raises:
        CorruptStore: the table has rows, or a history, that were acknowledged once.
    """
    versions = manifests(folder)
    if len(versions) > 1 or (versions and LanceTable.open(folder).count()):
        raise CorruptStore(f"{folder / 'COMMITTED'} is missing: {repair_command(folder)}")
    if versions and LanceTable.open(folder).card_sha256 != card.sha256:
        shutil.rmtree(folder / TABLE_FOLDER)
