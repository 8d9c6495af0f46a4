"""An object of a bucket as a file that is read by ranges, for libraries that read files."""

from __future__ import annotations

import io

from storage.objects.source_bucket import SourceBucket

__all__ = ["RangedFile"]

READ_AHEAD = 256 << 10


class RangedFile(io.RawIOBase):
    """An object, of which each read asks for a range, or takes it from the last answer.

    Args:
        bucket: The bucket.
        key: Of the object.
        size: Its size in bytes, where it is known.

    Raises:
        FileNotFoundError: there is no such object.
    """

    def __init__(self, bucket: SourceBucket, key: str, size: int | None = None) -> None:
        self._bucket, self._key = bucket, key
        self.size = bucket.size(key) if size is None else size
        self._at = 0
        self._held, self._held_at = b"", 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence])
        return self._at

    def readinto(self, buffer: object) -> int:
        """Fill a buffer from the position on."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = self._take(min(len(view), max(0, self.size - self._at)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _take(self, length: int) -> bytes:
        begin = self._at - self._held_at
        if not 0 <= begin <= begin + length <= len(self._held):
            if length >= READ_AHEAD:
                return self._bucket.get_range(self._key, self._at, length)
            wanted = min(READ_AHEAD, self.size - self._at)
            self._held, self._held_at = self._bucket.get_range(self._key, self._at, wanted), self._at
            begin = 0
        return self._held[begin : begin + length]
