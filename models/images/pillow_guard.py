"""Pillow on untrusted files: a bound on reads; its warnings and its own limit are off, from any thread."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from models.images.limits import ImageRejected

__all__ = ["CountedReads", "quiet_pillow"]

# Header parsers read a file segment by segment in Python, and a hostile file holds millions of segments. A
# 64 MiB PNG in 8 KiB pieces needs about 30,000 reads.
_MAX_READS = 200_000


class CountedReads(io.BytesIO):
    """A file in memory that can be read a bounded number of times."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads_left = _MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as usual.

        Raises:
            ImageRejected: the limit on reads is reached: the file consists of too many segments.
        """
        self._reads_left -= 1
        if self._reads_left < 0:
            raise ImageRejected("corrupt", "the file has too many parts: save it again from an image editor")
        return super().read(size)


_quiet_lock = threading.Lock()
_quiet_users = 0
_quiet_scope = warnings.catch_warnings()
_pillow_limit: int | None = None


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Suppress Pillow's warnings, which add nothing to the result or the error, and its limit on pixels.

    The limit is that of `models.images.limits`, which callers check before any pixel is decoded.
    `warnings.catch_warnings` is not thread-safe, so threads share one: the first to enter opens it, the last
    to leave closes it.
    """
    global _quiet_users, _quiet_scope, _pillow_limit
    with _quiet_lock:
        if _quiet_users == 0:
            _quiet_scope = warnings.catch_warnings()
            _quiet_scope.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _pillow_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _quiet_users += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0:
                Image.MAX_IMAGE_PIXELS = _pillow_limit
                _quiet_scope.__exit__(None, None, None)
