"""Checking a whole shard: every byte by the CRC-32 in its name, and each row with its page headers."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from storage.card import Card
from storage.features.encodings import open_codec
from storage.features.reader import FeatureReader
from storage.features.shards import shard_intact
from storage.layout import FEATURES_FOLDER, shard_file_name
from storage.objects.bucket_path import BucketPath
from storage.objects.files import Location

__all__ = ["CheckedShard", "ShardChecker"]

_MAX_SHARD_BYTES = 1 << 40


class CheckedShard(NamedTuple):
    """Whether all bytes of a shard are intact, and for each key why its row is unusable, or None."""

    intact: bool
    reasons: list[tuple[str, str | None]]


class ShardChecker:
    """Checks shards of a store; those of a bucket are copied, one at a time, to a temporary folder."""

    def __init__(self, location: Location, card: Card) -> None:
        """Check shards of the store at `location`.

        Raises:
            CorruptStore: the projection named on the card cannot be read.
        """
        self._location = location
        self._codec = open_codec(location, card)

    def check(self, shard: str, rows: Sequence[tuple[int, str]]) -> CheckedShard | None:
        """Check a shard; None if there is none.

        Args:
            shard: Its name, one that `write_shard` could have given.
            rows: The rows to check: number and key.
        """
        name = shard_file_name(shard)
        if isinstance(self._location, Path):
            path = self._location / FEATURES_FOLDER / name
            if path.is_symlink() or not path.is_file():
                return None
            return self._check(self._location, shard, rows)
        copied = self._location / FEATURES_FOLDER / name
        with tempfile.TemporaryDirectory(prefix="placeray-verify-") as folder:
            Path(folder, FEATURES_FOLDER).mkdir()
            try:
                data = _whole(copied)
            except FileNotFoundError:
                return None
            Path(folder, FEATURES_FOLDER, name).write_bytes(data)
            return self._check(Path(folder), shard, rows)

    def _check(self, folder: Path, shard: str, rows: Sequence[tuple[int, str]]) -> CheckedShard:
        reader = FeatureReader(folder, codec=self._codec)
        out = np.empty(self._codec.row_bytes, np.uint8)
        reasons = [(key, reader.read(shard, row, key, out)) for row, key in rows]
        return CheckedShard(shard_intact(folder, shard), reasons)


def _whole(path: BucketPath) -> bytes:
    return path.objects.get(path.key, _MAX_SHARD_BYTES).data
