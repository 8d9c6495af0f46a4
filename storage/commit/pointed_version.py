"""Which version a reader follows: the acknowledged one, or the one that a tag names."""

from __future__ import annotations

from storage.commit.ledger import Committed, file_sha256, read_committed
from storage.commit.version_tags import tagged_version
from storage.errors import CorruptStore, repair_command
from storage.layout import TABLE_FOLDER
from storage.objects.files import Location
from storage.table.lance_table import manifest_name
from storage.table.open_table import open_table

__all__ = ["pointed_version"]


def pointed_version(folder: Location, at: str | None, known: Committed | None = None) -> Committed | None:
    """Return the acknowledged version, or the one that a tag names; None where nothing was committed.

    Args:
        folder: The store's folder.
        at: A tag, or None.
        known: What this returned before: a version that has not changed is not opened again.

    Raises:
        NoSuchVersion: there is no such tag.
        CorruptStore: it cannot be read.
    """
    committed = read_committed(folder)
    if at is None or committed is None:
        return committed
    version = tagged_version(folder, at)
    if version > committed.version:
        raise CorruptStore(
            f"{folder}: the tag {at} names version {version}, which was never committed: "
            f"{repair_command(folder)}"
        )
    if version == committed.version:
        return committed
    try:
        digest = file_sha256(folder / TABLE_FOLDER / "_versions" / manifest_name(version))
    except FileNotFoundError:
        raise CorruptStore(
            f"{folder}: version {version}, which the tag {at} names, is missing: tag another one"
        ) from None
    if known is not None and (known.version, known.manifest_sha256) == (version, digest):
        return known
    table = open_table(folder, version=version)
    return Committed(version, table.count(), digest, table.card_sha256)
