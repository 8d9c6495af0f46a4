"""Reads the photos of a batch, those in buckets and containers by threads ahead of who decodes them.

A decoder spends most of a small photo's time waiting for its bucket. Threads read while it decodes; what is
read ahead is bounded in number and in size, and larger photos are read when it is their turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from models.images import ImageRejected
from models.images.limits import MAX_BYTES
from models.images.photo_file import read_bytes
from storage.photos.uris import is_photo_uri

__all__ = ["READ_AT_ONCE", "read_ahead"]

READ_AT_ONCE = 16  # requests of a decoder
AHEAD_BYTES = 8 << 20  # of a photo that is read ahead
_Read = bytes | ImageRejected


def read_ahead(
    uris: Sequence[str | None], options: Mapping[str, str] | None = None
) -> Iterator[bytes | ImageRejected | None]:
    """Yield the bytes of photos in their order, or why they cannot be read.

    Args:
        uris: See `models.images.photo_file.read_bytes`; None gives None.
        options: Of buckets.
    """
    if not any(uri is not None and is_photo_uri(uri) for uri in uris):
        yield from (None if uri is None else _read(uri, options, MAX_BYTES) for uri in uris)
        return
    waiting: deque[tuple[str | None, Future[_Read] | None]] = deque()
    rest = iter(uris)
    with ThreadPoolExecutor(READ_AT_ONCE, thread_name_prefix="photo") as threads:

        def start() -> None:
            for uri in rest:
                elsewhere = uri is not None and is_photo_uri(uri)
                future = threads.submit(_read, uri, options, AHEAD_BYTES) if elsewhere and uri else None
                waiting.append((uri, future))
                return

        for _ in range(READ_AT_ONCE):
            start()
        while waiting:
            uri, future = waiting.popleft()
            found = future.result() if future is not None else None
            if uri is not None and (future is None or _is_larger(found)):
                found = _read(uri, options, MAX_BYTES)
            start()
            yield found


def _read(uri: str, options: Mapping[str, str] | None, max_bytes: int) -> _Read:
    try:
        return read_bytes(uri, options, max_bytes=max_bytes)
    except ImageRejected as error:
        return error


def _is_larger(found: _Read | None) -> bool:
    return isinstance(found, ImageRejected) and found.reason == "too_large"
