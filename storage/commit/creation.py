"""Creation of a store: artifacts, card, empty table, the first acknowledged version."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from storage.artifacts import write_artifact
from storage.card import Card
from storage.card_files import first_card, write_first_card
from storage.commit.acknowledgement import open_acknowledger
from storage.commit.leases import StoreLease
from storage.commit.ledger import manifests
from storage.errors import CorruptStore, InvalidBatch, repair_command
from storage.features.encodings import FeatureCodec
from storage.features.projection import write_projection
from storage.features.whitening import parse_whitening
from storage.layout import CARD_FILE, TABLE_FOLDER
from storage.objects.bucket_path import BucketPath
from storage.objects.files import Location, exists
from storage.table.open_table import create_table, open_table

__all__ = ["create_store"]


def create_store(
    folder: Location,
    lease: StoreLease,
    card: Card,
    *,
    projection: npt.NDArray[np.float32] | None,
    artifacts: Sequence[bytes],
) -> None:
    """Write the artifacts, the card and the empty table, or finish that after a crash; the lease is held.

    Args:
        folder: The store's folder.
        lease: Its lease, taken.
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
    if exists(folder / CARD_FILE):
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
    acknowledger = open_acknowledger(folder, lease)
    acknowledger.restart()
    acknowledger.acknowledge(create_table(folder, card))


def _discard_unfinished(folder: Location, card: Card) -> None:
    """Remove the empty table that an interrupted attempt made for another card.

    Raises:
        CorruptStore: the table has rows, or a history, that were acknowledged once.
    """
    versions = manifests(folder)
    if len(versions) > 1 or (versions and open_table(folder).count()):
        raise CorruptStore(f"{folder / 'COMMITTED'} is missing: {repair_command(folder)}")
    if versions and open_table(folder).card_sha256 != card.sha256:
        _remove_table(folder)


def _remove_table(folder: Location) -> None:
    if isinstance(folder, BucketPath):
        folder.objects.delete(each.name for each in folder.objects.list((folder / TABLE_FOLDER).key))
    else:
        shutil.rmtree(folder / TABLE_FOLDER)
