"""Reading photo files from local file systems."""

from __future__ import annotations

import hashlib
import os
import stat

from models.images.limits import MAX_BYTES, ImageRejected

__all__ = ["read_bytes", "read_indexed"]


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a local file without blocking on pipes, devices and the like.

    Raises:
        ImageRejected: missing, unreadable, not a regular file, or over the decoder's byte cap.
    """
    try:
        # O_NONBLOCK: opening a named pipe must not wait for a writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageRejected("unreadable", "not a regular file")
            if status.st_size > MAX_BYTES:
                raise ImageRejected("too_large", f"{status.st_size} bytes; at most {MAX_BYTES} are read")
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ImageRejected("missing", "no such file") from None
    except (OSError, ValueError) as error:
        raise ImageRejected("unreadable", str(error)) from error


def read_indexed(path: str | os.PathLike[str], sha256: str) -> bytes:
    """Read the file of an indexed image, and no other that a row may name.

    Args:
        path: Where the image was indexed from. Stores of others may name any file of this machine.
        sha256: Digest of the indexed file as hex digits.

    Raises:
        ImageRejected: as `read_bytes`; reason `changed` if the file is another one.
    """
    data = read_bytes(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ImageRejected("changed", "not the photo that was indexed; index its source again")
    return data
