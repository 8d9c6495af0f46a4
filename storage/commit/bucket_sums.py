"""Digests of the table's files in a bucket: an immutable object per commit, since none can be appended to."""

from __future__ import annotations

import re
import secrets

from storage.objects.bucket_path import BucketPath
from storage.objects.protocol import ByteRange

__all__ = ["SUMS_FOLDER", "add_sums", "read_all_sums", "replace_sums"]

SUMS_FOLDER = "ledger"
_NAME = re.compile(r"\d{20}-[0-9a-f]{8}\.sums", re.ASCII)
_MAX_BYTES = 1 << 26


def add_sums(location: BucketPath, version: int, lines: str) -> None:
    """Record the digests of the files that a version added, one per line as in SHA256SUMS."""
    path = location / SUMS_FOLDER / f"{version:020d}-{secrets.token_hex(4)}.sums"
    path.objects.put(path.key, lines.encode())


def read_all_sums(location: BucketPath) -> str:
    """Return all recorded lines, the oldest first."""
    objects = location.objects
    ranges = [ByteRange(name, 0, _MAX_BYTES) for name in _names(location)]
    return "".join((data or b"").decode(errors="replace") for data in objects.get_ranges(ranges))


def replace_sums(location: BucketPath, version: int, lines: str) -> None:
    """Record these lines in place of all others: first the new object, then the others go."""
    before = _names(location)
    add_sums(location, version, lines)
    location.objects.delete(before)


def _names(location: BucketPath) -> list[str]:
    listed = (each.name for each in location.objects.list((location / SUMS_FOLDER).key))
    return [name for name in listed if _NAME.fullmatch(name.rpartition("/")[2])]
