"""Reads the bytes of one photo, wherever its URI says that they lie, within a limit."""

from __future__ import annotations

import os
from collections.abc import Mapping

from storage.errors import StoreError
from storage.objects.errors import BucketNotFound, StorageForbidden, StorageThrottled
from storage.objects.source_bucket import ObjectTooLarge, ObjectTruncated, open_source_bucket
from storage.photos.errors import PhotoUnavailable
from storage.photos.table_cells import read_cell
from storage.photos.uris import ByteSpan, ObjectUri, PhotoUri, TableCell
from storage.regular_files import open_regular

__all__ = ["place_exists", "read_photo"]

_REASONS = {
    BucketNotFound: "missing",
    StorageForbidden: "forbidden",
    StorageThrottled: "throttled",
    ObjectTruncated: "truncated",
}


def read_photo(uri: str, max_bytes: int, options: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes of a photo in a bucket or in a container.

    Args:
        uri: As `storage.photos.uris` has it.
        max_bytes: No more is read.
        options: Of buckets, see `storage.objects.source_bucket.open_source_bucket`.

    Raises:
        PhotoUnavailable: after bounded retries; with its reason.
        SecretInOptions, UnknownStorageOption: an option is not one.
    """
    try:
        where = PhotoUri.parse(uri)
    except ValueError as error:
        raise PhotoUnavailable("unsupported_uri", str(error)) from None
    try:
        data = _read(where, max_bytes, options)
    except FileNotFoundError:
        raise PhotoUnavailable("missing", "there is no such object or file") from None
    except ObjectTooLarge as error:
        raise _too_large(error.size, max_bytes) from None
    except OSError as error:
        raise PhotoUnavailable("unreadable", str(error.strerror or error)) from None
    except StoreError as error:
        reason = next((name for kind, name in _REASONS.items() if isinstance(error, kind)), "unreachable")
        raise PhotoUnavailable(reason, str(error)) from None
    if data is None:
        raise PhotoUnavailable("missing", "the table has no value there")
    if len(data) > max_bytes:
        raise _too_large(len(data), max_bytes)
    return data


def place_exists(uri: str, options: Mapping[str, str] | None = None) -> bool:
    """Return whether the file or object that a photo lies in exists; True where that cannot be found out."""
    try:
        place = PhotoUri.parse(uri).place
        if isinstance(place, str):
            return os.path.exists(place)
        if place.name.endswith(".lance"):
            return True
        open_source_bucket(place.scheme, place.bucket, options).size(place.key)
    except FileNotFoundError:
        return False
    except (ValueError, StoreError):
        return True
    return True


def _read(where: PhotoUri, max_bytes: int, options: Mapping[str, str] | None) -> bytes | None:
    if isinstance(where.part, TableCell):
        return read_cell(where.place, where.part, options)
    if isinstance(where.part, ByteSpan) and where.part.length > max_bytes:
        raise ObjectTooLarge(where.part.length)
    if isinstance(where.place, ObjectUri):
        bucket = open_source_bucket(where.place.scheme, where.place.bucket, options)
        if where.part is None:
            return bucket.get(where.place.key, max_bytes)
        return _complete(bucket.get_range(where.place.key, *where.part), where.part)
    if where.part is None:
        raise PhotoUnavailable("unsupported_uri", "the address names no part of the file: give its path")
    fd = open_regular(where.place)
    try:
        return _complete(os.pread(fd, where.part.length, where.part.start), where.part)
    finally:
        os.close(fd)


def _complete(data: bytes, span: ByteSpan) -> bytes:
    if len(data) < span.length:
        raise PhotoUnavailable("truncated", "the shard ends before the photo does: write it again")
    return data


def _too_large(size: int, max_bytes: int) -> PhotoUnavailable:
    return PhotoUnavailable("too_large", f"{size} bytes; at most {max_bytes} are read")
