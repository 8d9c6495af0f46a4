"""The table of a store, wherever it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from storage.card import Card
from storage.layout import TABLE_FOLDER
from storage.objects.files import Location
from storage.table.bucket_table import BucketTable
from storage.table.lance_table import LanceTable

__all__ = ["Table", "create_table", "dataset_of", "open_table"]

Table: TypeAlias = LanceTable | BucketTable


def open_table(location: Location, *, version: int | None = None) -> Table:
    """Open the table at `version`, read-only, or at its head.

    Raises:
        CorruptStore: there is no such version, or a manifest cannot be read.
    """
    if isinstance(location, Path):
        return LanceTable.open(location, version=version)
    return BucketTable.open(location, version=version)


def create_table(location: Location, card: Card) -> Table:
    """Create the empty table, or open the existing one."""
    if isinstance(location, Path):
        return LanceTable.create(location, card)
    return BucketTable.create(location, card)


def dataset_of(table: Table) -> Any:
    """Return the version that is open, as pylance opens it."""
    import lance

    if isinstance(table, BucketTable):
        return table.dataset
    return lance.dataset(table.folder / TABLE_FOLDER, version=table.version)
