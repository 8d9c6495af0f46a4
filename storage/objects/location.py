"""From the URI of a store to where its bytes lie: a folder of this machine, or a prefix of a bucket.

The one place that tells the two apart by the URI. What differs between them beyond single objects is decided
by the type of the location: the lease, how a version is acknowledged, how the table and the shards are read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from storage.objects.address import BucketAddress, is_bucket_uri, with_options
from storage.objects.bucket import BucketObjects
from storage.objects.local import LocalObjects
from storage.objects.protocol import ObjectStore
from storage.uri import local_folder

__all__ = ["Location", "location_uri", "objects_of", "open_location"]

Location: TypeAlias = Path | BucketObjects


def open_location(
    uri: str | os.PathLike[str] | Location, options: Mapping[str, str] | None = None
) -> Location:
    """Return where the bytes of a store lie; nothing is asked of a bucket yet.

    Args:
        uri: A folder, or `s3://bucket/prefix`, `gs://...`, `az://container/...`, each with options as in
            `s3://bucket/prefix?endpoint=https://storage.example.com`.
        options: Further options of a bucket, by their names in `storage.objects.address.OPTIONS`.

    Raises:
        SecretInOptions: an option or the URI contains a secret.
        UnknownStorageOption: there is no such option, or it has another form.
        StoreError: the URI has another form, or another scheme.
    """
    if isinstance(uri, BucketObjects):
        return uri
    text = os.fspath(uri)
    if not is_bucket_uri(text):
        return local_folder(with_options(text, options or {}))
    return BucketObjects(BucketAddress.parse(with_options(text, options or {})))


def location_uri(location: Location) -> str:
    """Return the URI that opens a location again, in any process; a bucket's with its options."""
    return location.address.uri if isinstance(location, BucketObjects) else os.fspath(location)


def objects_of(location: Location) -> ObjectStore:
    """Return the objects at a location."""
    return location if isinstance(location, BucketObjects) else LocalObjects(location)
