"""What was measured about a store's answers, kept beside its rows: `calibration.json` and `places.json`.

Both are small JSON objects that are replaced as a whole by the holder of the lease. A store without them
answers as well; what they hold is checked by who uses it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from storage.commit.leases import StoreLease, confirm_lease
from storage.json_values import parse_object
from storage.layout import CALIBRATION_FILE, OWN_PHOTOS_FILE
from storage.objects.bucket_path import BucketPath
from storage.objects.files import Location, read_bounded, write_file

__all__ = ["CALIBRATION_FILE", "OWN_PHOTOS_FILE", "read_measured", "stamp_of", "write_measured"]

_MAX_BYTES = 1 << 20


def write_measured(folder: Location, lease: StoreLease, name: str, values: Mapping[str, Any]) -> None:
    """Write one of the files durably, under the lease.

    Args:
        folder: The store's folder.
        lease: The store's lease, held.
        name: `CALIBRATION_FILE` or `OWN_PHOTOS_FILE`.
        values: Plain finite values.

    Raises:
        StoreLocked: the lease was lost.
        OutOfSpace: the disk is full.
        NotWritable: the store is on a read-only file system, or belongs to another user.
    """
    assert name in (CALIBRATION_FILE, OWN_PHOTOS_FILE)
    confirm_lease(lease)
    write_file(folder / name, (json.dumps(values, indent=1, allow_nan=False) + "\n").encode())


def read_measured(folder: Location, name: str) -> dict[str, Any] | None:
    """Return the values of one of the files as somebody wrote them; None where there is none.

    Raises:
        ValueError: it is not a JSON object.
        NotReadable: this user may not read it.
        CorruptStore: it is a link, not a regular file, or too large.
    """
    assert name in (CALIBRATION_FILE, OWN_PHOTOS_FILE)
    try:
        data = read_bounded(folder / name, _MAX_BYTES, advice="delete it, then calibrate or index again")
    except FileNotFoundError:
        return None
    return parse_object(data)


def stamp_of(folder: Location, name: str) -> object:
    """Return what changes whenever the file is replaced: inode, size and time; None where there is none.

    In a bucket the tag of its contents.
    """
    if isinstance(folder, BucketPath):
        try:
            return folder.objects.get(name, _MAX_BYTES).tag
        except FileNotFoundError:
            return None
    try:
        status = (folder / name).lstat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
