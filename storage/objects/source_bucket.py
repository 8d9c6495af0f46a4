"""Reading the objects of a bucket that is not a store: photos, listings and shards, under any name.

Requests are repeated with growing pauses, for seconds rather than minutes: what still fails is one photo.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple, TypeVar

from storage.objects.address import BucketAddress, options_for
from storage.objects.bucket import open_client
from storage.objects.errors import StorageUnreachable, storage_error
from storage.objects.parallel_streams import in_parallel

__all__ = ["ListedObject", "ObjectTooLarge", "ObjectTruncated", "SourceBucket", "open_source_bucket"]

_Result = TypeVar("_Result")
LISTERS = 16  # prefixes listed at once
_PAGE, _PAGES_AHEAD = 1000, 8
_FLAT_PAGES = 4  # before prefixes are listed by themselves
_DEPTH = 2  # levels of prefixes that are divided
TIMEOUT_S = 30.0  # of a request with its whole answer, which may have 64 MiB
RETRIES: dict[str, Any] = {
    "max_retries": 5,
    "backoff": {
        "init_backoff": timedelta(milliseconds=200),
        "max_backoff": timedelta(seconds=5),
        "base": 2,
    },
}


class ListedObject(NamedTuple):
    """An object's key and its size in bytes."""

    key: str
    size: int


class ObjectTruncated(StorageUnreachable):
    """The contents of an object end early, again and again."""

    reason = "object_truncated"


class ObjectTooLarge(Exception):
    """An object has more bytes than are read.

    Args:
        size: Its number of bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def open_source_bucket(scheme: str, bucket: str, options: Mapping[str, str] | None = None) -> SourceBucket:
    """Return a bucket; those that are given the same options share their connections.

    Args:
        scheme: One of `storage.objects.address.SCHEMES`.
        bucket: Its name.
        options: By their names in `storage.objects.address.OPTIONS`; those that other schemes have are left
            out. The rest is that of the environment, as are credentials.

    Raises:
        SecretInOptions: an option is a secret.
        UnknownStorageOption: no scheme has such an option, or it has another form.
    """
    address = BucketAddress(scheme, bucket, "", options_for(scheme, options or {}))
    return _open(address.uri, address.endpoint())


@functools.lru_cache(maxsize=256)
def _open(uri: str, endpoint: str | None) -> SourceBucket:
    return SourceBucket(BucketAddress.parse(uri))


class SourceBucket:
    """A bucket whose objects are read. Threads may share it.

    Every method raises `StorageUnreachable`, `StorageForbidden`, `StorageThrottled` or `BucketNotFound` where
    it does not answer as it should, after bounded retries.
    """

    def __init__(self, address: BucketAddress) -> None:
        self.address = address
        timeout_s = float(address.options.get("timeout_s", TIMEOUT_S))
        retries = {**RETRIES, "retry_timeout": timedelta(seconds=2 * timeout_s)}
        self._client = open_client(address, timeout_s=timeout_s, retries=retries)

    def __repr__(self) -> str:
        return f"SourceBucket({self.address.shown!r})"

    def get(self, key: str, max_bytes: int) -> bytes:
        """Return an object.

        Raises:
            FileNotFoundError: there is none.
            ObjectTooLarge: it has more than `max_bytes`; they are not read.
            ObjectTruncated: it ends early.
        """
        import obstore

        def read() -> bytes:
            answer = obstore.get(self._client, key)
            size = int(answer.meta["size"])
            if size > max_bytes:
                raise ObjectTooLarge(size)
            return _whole(bytes(answer.bytes()), size)

        return self._asked(key, read)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return a range of an object, shorter where the object ends.

        Raises:
            FileNotFoundError: there is no such object.
            ObjectTruncated: the answer ends early.
        """
        import obstore

        def read() -> bytes:
            answer = obstore.get(self._client, key, options={"range": (start, start + length)})
            first, end = answer.range
            return _whole(bytes(answer.bytes()), end - first)

        try:
            return self._asked(key, read) if length > 0 else b""
        except StorageUnreachable as error:
            if "HTTP status 416" in str(error):  # it starts behind the end
                return b""
            raise

    def size(self, key: str) -> int:
        """Return the size of an object in bytes.

        Raises:
            FileNotFoundError: there is none.
        """
        import obstore

        return self._asked(key, lambda: int(obstore.head(self._client, key)["size"]))

    def pages(self, prefix: str) -> Iterator[list[ListedObject]]:
        """Yield the objects below a prefix, which ends where a name between slashes does.

        Of many objects, the prefixes below are listed in parallel; their order is always the same.
        """
        pages = self._pages(prefix)
        start = list(itertools.islice(pages, _FLAT_PAGES))
        inside = len(prefix) + 1 if prefix else 0
        nested = any("/" in each.key[inside:] for page in start for each in page)
        if len(start) < _FLAT_PAGES or not nested:
            yield from start
            yield from pages
            return
        yield from self._list_divided(prefix)

    def _list_divided(self, prefix: str) -> Iterator[list[ListedObject]]:
        """List the prefixes below one in parallel, each a bounded number of pages ahead."""
        parts = self._divide(prefix, _DEPTH)
        streams = (
            partial(self._pages, part) if isinstance(part, str) else partial(iter, [part]) for part in parts
        )
        yield from in_parallel(streams, at_once=LISTERS, ahead=_PAGES_AHEAD)

    def _divide(self, prefix: str, depth: int) -> list[str | list[ListedObject]]:
        """Return the objects directly below a prefix, and the prefixes below it, or those below them."""
        import obstore

        found = self._asked(prefix, lambda: obstore.list_with_delimiter(self._client, prefix or None))
        objects = [ListedObject(each["path"], int(each["size"])) for each in found["objects"]]
        below = sorted(found["common_prefixes"])
        parts: list[str | list[ListedObject]] = [objects] if objects else []
        for inner in below:
            parts += self._divide(inner, depth - 1) if depth > 1 and len(below) < LISTERS // 4 else [inner]
        return parts

    def _pages(self, prefix: str) -> Iterator[list[ListedObject]]:
        import obstore

        pages = iter(obstore.list(self._client, prefix or None, chunk_size=_PAGE))
        while True:
            page = self._asked(prefix, lambda: next(pages, None))
            if page is None:
                return
            yield [ListedObject(each["path"], int(each["size"])) for each in page]

    def _asked(self, key: str, request: Callable[[], _Result]) -> _Result:
        """Make a request; its errors become those of placeray, without the library's text."""
        from obstore.exceptions import BaseError

        shown = f"{self.address.shown}/{key}" if key else self.address.shown
        try:
            return request()
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
                raise storage_error(self.address.shown, error) from None
            raise FileNotFoundError(f"{shown}: there is no such object") from None
        except (BaseError, OSError) as error:
            text = str(error)
            if "response body error" in text or "kind: Body" in text:
                raise ObjectTruncated(
                    f"{shown} ended early each time that it was read: run the same command again"
                ) from None
            raise storage_error(shown, error) from None


def _whole(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise OSError("response body error: it ended early")
    return data


# A forked process does not inherit its parent's connections.
os.register_at_fork(after_in_child=_open.cache_clear)
