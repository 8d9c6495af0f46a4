"""From the URI of a store to where its bytes lie: a folder of this machine, or a prefix of a bucket."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path

from storage.errors import StoreError
from storage.objects.address import BucketAddress, is_bucket_uri, with_options
from storage.objects.bucket import BucketObjects
from storage.objects.bucket_path import BucketPath
from storage.objects.files import Location
from storage.objects.local import LocalObjects
from storage.objects.protocol import ObjectStore
from storage.uri import local_folder

__all__ = ["Location", "location_uri", "objects_of", "open_file", "open_location"]


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
    if isinstance(uri, BucketPath):
        return uri
    text = os.fspath(uri)
    if not is_bucket_uri(text):
        return local_folder(with_options(text, options or {}))
    address = BucketAddress.parse(with_options(text, options or {}))
    return BucketPath(_objects(address.uri, address.endpoint()))


@functools.lru_cache(maxsize=64)
def _objects(uri: str, endpoint: str | None) -> BucketObjects:
    """Return the objects of an address: its connections are shared by all who open it."""
    return BucketObjects(BucketAddress.parse(uri))


def open_file(uri: str | os.PathLike[str]) -> Location:
    """Return where one file lies: a path, or an object of a bucket with its whole name; see `open_location`.

    Raises:
        StoreError: the address names a bucket and no object in it.
    """
    if not is_bucket_uri(uri):
        return Path(uri)
    address = BucketAddress.parse(os.fspath(uri))
    above, _, name = address.prefix.rpartition("/")
    if not name:
        raise StoreError(f"{address.shown} is a bucket: give the name of a file in it")
    return open_location(BucketAddress(address.scheme, address.bucket, above, address.options).uri) / name


def location_uri(location: Location) -> str:
    """Return the URI that opens a location again, in any process; a bucket's with its options."""
    return location.objects.address.uri if isinstance(location, BucketPath) else os.fspath(location)


def objects_of(location: Location) -> ObjectStore:
    """Return the objects at a location."""
    return LocalObjects(location) if isinstance(location, Path) else location.objects
