"""Opening and reading regular files without following a link or waiting for a pipe."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from storage.errors import CorruptStore, NotReadable

__all__ = ["not_allowed", "open_regular", "read_regular"]


def open_regular(path: str | os.PathLike[str]) -> int:
    """Open a regular file for reading, without following a link or waiting for a pipe; return its descriptor.

    Raises:
        OSError: it cannot be opened; ELOOP if it is a link, EINVAL if it is not a regular file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return fd


def read_regular(path: Path, max_bytes: int, *, advice: str = "restore it from a backup") -> bytes:
    """Return the contents of a file; see `storage.objects.files.read_bounded`."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size  # a buffer of what may be read is made at once
            data = file.read(min(max_bytes, size) + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except PermissionError as error:
        raise NotReadable(
            f"{path} cannot be read ({error.strerror}): give this user access to the store"
        ) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise not_allowed(path, "is a link") from error
        raise CorruptStore(f"{path} cannot be read ({error.strerror}): {advice}") from error
    if len(data) > max_bytes:
        raise CorruptStore(f"{path} is larger than {max_bytes} bytes, which placeray never writes: {advice}")
    return data


def not_allowed(path: Path, what: str) -> CorruptStore:
    """Return the error for a link, or another kind of file, where the store's own belong."""
    return CorruptStore(
        f"{path} {what}, which has no place in a store: remove it, or put the file or folder itself there "
        "(another disk: mount --bind)"
    )
