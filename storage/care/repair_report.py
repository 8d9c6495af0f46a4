"""The result of a repair."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RepairReport"]


@dataclass(frozen=True)
class RepairReport:
    """The result of a repair.

    Attributes:
        version: The acknowledged version after it.
        actions: A sentence per step taken.
        removed: Keys of the removed rows: index their images again.
        removed_unnamed: Number of further removed rows, whose keys could not be read.
        quarantined: Files moved to `<store>/quarantine/`.
    """

    version: int
    actions: list[str]
    removed: list[str]
    removed_unnamed: int
    quarantined: list[str]
