"""Where the photos of a store lie now: in the database that is given, else where they were indexed from."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from models.images import ImageRejected
from models.images.photo_file import read_bytes, read_indexed
from storage.records import ImageRecord

__all__ = ["DatabasePhotos"]


class DatabasePhotos:
    """Reads stored photos from the listing of a database, by their id, else by their content.

    Photos move and stores are copied to other machines, so the path of a record is tried after the listing.
    Whatever is read has the record's digest.

    Args:
        listing: Makes the listing of the database, with `image_id` and `uri`; called once, when a photo is
            read first. None: there is none.
    """

    def __init__(self, listing: Callable[[], pa.Table] | None = None) -> None:
        self._listing = listing
        self._by_id: dict[str, str] | None = None
        self._by_content: dict[str, str] | None = None

    def read(self, record: ImageRecord) -> bytes:
        """Return the bytes of a stored photo.

        Raises:
            ImageRejected: it is neither in the listing nor where it was indexed from.
        """
        listed = self._listed()
        for uri in (listed.get(record.image_id), record.uri):
            with contextlib.suppress(ImageRejected):
                if uri is not None:
                    return read_indexed(uri, record.sha256)
        elsewhere = self._digests().get(record.sha256)
        return read_indexed(record.uri if elsewhere is None else elsewhere, record.sha256)

    def _listed(self) -> dict[str, str]:
        if self._by_id is None:
            rows: list[dict[str, Any]] = []
            if self._listing is not None:
                rows = self._listing().select(["image_id", "uri"]).to_pylist()
            self._by_id = {row["image_id"]: row["uri"] for row in rows if row["image_id"] and row["uri"]}
        return self._by_id

    def _digests(self) -> dict[str, str]:
        """Return the listed photos by digest; every file is read for that, once."""
        if self._by_content is None:
            self._by_content = {}
            for uri in self._listed().values():
                with contextlib.suppress(ImageRejected):
                    self._by_content[hashlib.sha256(read_bytes(uri)).hexdigest()] = uri
        return self._by_content
