"""Objects in a bucket, by obstore: bounded requests, retries, conditional writes with read-back."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from storage.errors import CorruptStore, StoreError
from storage.objects.address import BucketAddress
from storage.objects.aws_profile import profile_credentials
from storage.objects.errors import StorageThrottled, StorageUnreachable, storage_error
from storage.objects.protocol import ByteRange, ConditionFailed, ObjectInfo, Tagged, check_name

if TYPE_CHECKING:
    import obstore.store

__all__ = ["READS_AT_ONCE", "BucketObjects", "open_client"]

READS_AT_ONCE = 50  # so that a hundred candidates take two turns
_RETRIES = 3  # of a request, by obstore: 5xx, connections, and timeouts of reads
_TRIES = 3  # of a write, whose timeouts obstore does not repeat
_PAUSE_S = 0.2
_ONE_PUT_BYTES = 5 << 20  # above that in parts
_Result = TypeVar("_Result")


class BucketObjects:
    """The objects under a prefix of a bucket, see `ObjectStore`.

    Credentials are those of the provider's default chain; this object does not know them.
    """

    def __init__(self, address: BucketAddress) -> None:
        """Prepare requests; nothing is sent yet."""
        self.address = address
        self._client = open_client(address)

    def __repr__(self) -> str:
        return f"BucketObjects({self.shown!r})"

    def __str__(self) -> str:
        return self.shown

    def __reduce__(self) -> tuple[type[BucketObjects], tuple[BucketAddress]]:
        return type(self), (self.address,)

    @property
    def shown(self) -> str:
        """The location for messages, without options."""
        return self.address.shown

    def get(self, name: str, max_bytes: int) -> Tagged:
        """See `ObjectStore.get`."""
        import obstore

        def read() -> Tagged:
            answer = obstore.get(self._client, check_name(name))
            if answer.meta["size"] > max_bytes:
                raise CorruptStore(
                    f"{self.shown}/{name} is larger than {max_bytes} bytes, which placeray never writes: "
                    "restore it from a backup"
                )
            return Tagged(bytes(answer.bytes()), _tag(answer.meta))

        return self._asked(read)

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """See `ObjectStore.get_range`."""
        import obstore

        if length <= 0:
            return b""

        def read() -> bytes:
            asked: Any = {"suffix": -start} if start < 0 else (start, start + length)
            if start < 0 and self.address.scheme == "az":  # Azure has no ranges from the end
                size = obstore.head(self._client, check_name(name))["size"]
                if not size:
                    return b""
                asked = (max(0, size + start), size)
            answer = obstore.get(self._client, check_name(name), options={"range": asked})
            return bytes(answer.bytes())[:length]

        try:
            return self._asked(read)
        except StorageUnreachable as error:
            if "HTTP status 416" in str(error):  # it starts behind the end
                return b""
            raise

    def get_ranges(self, ranges: Sequence[ByteRange]) -> list[bytes | None]:
        """See `ObjectStore.get_ranges`."""

        def read(wanted: ByteRange) -> bytes | None:
            try:
                return self.get_range(*wanted)
            except FileNotFoundError:
                return None

        return list(_pool().map(read, ranges)) if len(ranges) > 1 else [read(wanted) for wanted in ranges]

    def put(self, name: str, data: bytes | memoryview) -> None:
        """See `ObjectStore.put`."""
        import obstore

        parts = len(data) > _ONE_PUT_BYTES
        whole = memoryview(data).cast("B") if len(data) else b""
        for attempt in range(_TRIES):
            try:
                self._asked(lambda: obstore.put(self._client, check_name(name), whole, use_multipart=parts))
                return
            except (StorageUnreachable, StorageThrottled):
                if attempt + 1 == _TRIES:
                    raise
            time.sleep(_PAUSE_S * 2**attempt)

    def put_if_absent(self, name: str, data: bytes) -> str:
        """See `ObjectStore.put_if_absent`."""
        return self._put_if(name, data, None)

    def put_if_match(self, name: str, data: bytes, tag: str) -> str:
        """See `ObjectStore.put_if_match`."""
        return self._put_if(name, data, tag)

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """See `ObjectStore.list`."""
        import obstore

        def read() -> list[ObjectInfo]:
            pages = obstore.list(self._client, prefix or None, chunk_size=1000)
            return sorted(
                (
                    ObjectInfo(each["path"], each["size"], each["last_modified"].timestamp())
                    for page in pages
                    for each in page
                ),
                key=lambda each: each.name,
            )

        return self._asked(read)

    def delete(self, names: Iterable[str]) -> None:
        """See `ObjectStore.delete`."""
        import obstore

        def remove(name: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                self._asked(lambda: obstore.delete(self._client, check_name(name)))

        list(_pool().map(remove, names))

    def _put_if(self, name: str, data: bytes, tag: str | None) -> str:
        """Write under a condition; what became of a request without an answer is read back."""
        import obstore

        mode: Any = "create" if tag is None else {"e_tag": tag}

        def write() -> str:
            return _tag(obstore.put(self._client, check_name(name), data, mode=mode))

        failure: StoreError | None = None
        for attempt in range(_TRIES):
            try:
                return self._asked(write)
            except ConditionFailed:
                failure = None
            except (StorageUnreachable, StorageThrottled) as error:
                failure = error
            current = self._current(name, len(data))
            if current is not None and current.data == data:
                return current.tag
            if (current.tag if current else None) != tag:
                break
            time.sleep(_PAUSE_S * 2**attempt)  # still as required: of two at once (409), or not arrived
        else:
            if failure is not None:
                raise failure
        raise ConditionFailed(f"{self.shown}/{name} was changed by another writer: read it again")

    def _current(self, name: str, expected: int) -> Tagged | None:
        import obstore

        def read() -> Tagged:
            answer = obstore.get(self._client, check_name(name))
            short = answer.meta["size"] <= expected
            return Tagged(bytes(answer.bytes()) if short else b"", _tag(answer.meta))

        try:
            return self._asked(read)
        except FileNotFoundError:
            return None

    def _asked(self, request: Callable[[], _Result]) -> _Result:
        """Make a request; its errors become those of placeray, without the library's text."""
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        try:
            return request()
        except (AlreadyExistsError, PreconditionError):
            raise ConditionFailed(f"{self.shown} is not in the required state: read it again") from None
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
                raise storage_error(self.shown, error) from None
            raise FileNotFoundError(f"{self.shown}: there is no such object") from None
        except (BaseError, OSError) as error:
            raise storage_error(self.shown, error) from None


def open_client(
    address: BucketAddress, *, timeout_s: float | None = None, retries: Any = None
) -> obstore.store.ObjectStore:
    """Return obstore's client of an address.

    Args:
        address: Of the bucket.
        timeout_s: Of a request, unless the address has one; default: that of `BucketAddress`.
        retries: How requests are repeated, as obstore has it; default: for a store.

    Raises:
        StoreError: the library refuses the address, or AWS_PROFILE names a profile without keys.
    """
    import obstore.store as stores

    endpoint = address.endpoint()
    seconds = address.timeout_s if timeout_s is None or "timeout_s" in address.options else timeout_s
    client: Any = {
        "timeout": timedelta(seconds=seconds),
        "connect_timeout": timedelta(seconds=min(3.0, seconds)),
        "allow_http": bool(endpoint and endpoint.startswith("http://")) or "use_emulator" in address.options,
    }
    retries = retries or {
        "max_retries": _RETRIES,
        "retry_timeout": timedelta(seconds=6 * seconds),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=2),
            "base": 2,
        },
    }
    given: dict[str, Any] = {
        name: value == "true" if value in ("true", "false") else value
        for name, value in address.options.items()
        if name not in ("timeout_s", "endpoint", "cache_dir", "cache_gib")
    }
    given |= {"client_options": client, "retry_config": retries, "prefix": address.prefix or None}
    if endpoint:
        given["endpoint"] = endpoint
    try:
        if address.scheme == "gs":
            return stores.GCSStore(address.bucket, **given)
        if address.scheme == "az":
            return stores.AzureStore(address.bucket, **given)
        if address.options.get("skip_signature") != "true" and (profile := profile_credentials()):
            given["credential_provider"] = profile
        return stores.S3Store(address.bucket, **{**given, "region": address.region()})
    except StoreError:
        raise
    except Exception as error:
        raise storage_error(address.shown, error) from None


def _tag(meta: Any) -> str:
    tag = meta.get("e_tag")
    if tag is None:
        raise CorruptStore("the storage gave no ETag, which conditional writes need: use another server")
    return str(tag)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="bucket")


# A forked process does not inherit its parent's threads.
os.register_at_fork(after_in_child=_pool.cache_clear)
