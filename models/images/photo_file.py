"""Reading photo files: of local file systems, of buckets, and out of containers of many photos."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping

from models.images.limits import MAX_BYTES, ImageRejected
from storage.photos.uris import is_photo_uri

_FOR_SHOWING = {"timeout_s": "5"}  # nobody waits a minute for a picture
__all__ = ["photo_exists", "read_bytes", "read_indexed"]


def read_bytes(
    path: str | os.PathLike[str],
    options: Mapping[str, str] | None = None,
    *,
    max_bytes: int = MAX_BYTES,
) -> bytes:
    """Read a photo; of a local file without blocking on pipes, devices and the like.

    Args:
        path: Of a local file, or a URI as `storage.photos.uris` has it.
        options: Of buckets, such as `endpoint`; the rest is that of the environment.
        max_bytes: Largest file.

    Raises:
        ImageRejected: missing, unreadable, not a regular file, or too large; of a bucket, after
            bounded retries, also forbidden, throttled, truncated or unreachable.
    """
    if isinstance(path, str) and is_photo_uri(path):
        return _read_elsewhere(path, options, max_bytes)
    try:
        # O_NONBLOCK: opening a named pipe must not wait for a writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageRejected("unreadable", "not a regular file")
            if status.st_size > max_bytes:
                raise ImageRejected("too_large", f"{status.st_size} bytes; at most {max_bytes} are read")
            return file.read(max_bytes + 1)
    except FileNotFoundError:
        raise ImageRejected("missing", "no such file") from None
    except (OSError, ValueError) as error:
        raise ImageRejected("unreadable", str(error)) from error


def read_indexed(path: str | os.PathLike[str], sha256: str) -> bytes:
    """Read the file of an indexed image, and no other that a row may name.

    Args:
        path: Where the image was indexed from. Stores of others may name any file of this machine, and any
            object that its credentials may read; which servers are asked is for the environment to say.
        sha256: Digest of the indexed file as hex digits.

    Raises:
        ImageRejected: as `read_bytes`; reason `changed` if the file is another one.
    """
    data = read_bytes(path, _FOR_SHOWING)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ImageRejected("changed", "not the photo that was indexed; index its source again")
    return data


def photo_exists(uri: str, options: Mapping[str, str] | None = None) -> bool:
    """Return whether the file, object or container of a photo is there, as far as that can be known."""
    if not is_photo_uri(uri):
        return os.path.exists(uri)
    from storage.photos.reading import place_exists

    return place_exists(uri, options)


def _read_elsewhere(uri: str, options: Mapping[str, str] | None, max_bytes: int) -> bytes:
    from storage.photos.errors import PhotoUnavailable
    from storage.photos.reading import read_photo

    try:
        return read_photo(uri, max_bytes, options)
    except PhotoUnavailable as error:
        raise ImageRejected(error.reason, error.message) from None
