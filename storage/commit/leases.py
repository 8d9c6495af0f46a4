"""The write lock of a store, wherever it lies."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from storage.commit.bucket_lease import BucketLease
from storage.commit.lease import Lease
from storage.commit.lease import crashed_since as crashed_in_folder
from storage.objects.files import Location

__all__ = ["StoreLease", "confirm_lease", "crashed_since", "open_lease"]

StoreLease: TypeAlias = Lease | BucketLease


def open_lease(location: Location, *, timeout_s: float = 0.0) -> StoreLease:
    """Return the lease of a store, to be taken by a `with` block.

    Args:
        location: The store.
        timeout_s: How long taking it waits for another writer.
    """
    if isinstance(location, Path):
        return Lease(location, timeout_s=timeout_s)
    return BucketLease(location, timeout_s=timeout_s)


def confirm_lease(lease: StoreLease) -> None:
    """Check that a lease is held, just before a write or a removal that carries no condition of its own.

    Raises:
        StoreLocked: another writer took it over.
    """
    lease.check() if isinstance(lease, Lease) else lease.confirm()


def crashed_since(location: Location) -> float | None:
    """Return when a holder took the lease that ended without releasing it, see `storage.commit.lease`.

    None in a bucket: its times are those of another clock, and such a holder may be paused.
    """
    return crashed_in_folder(location) if isinstance(location, Path) else None
