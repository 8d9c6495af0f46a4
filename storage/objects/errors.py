"""Errors of object storage: which of the ways in which a bucket does not answer, without any secret."""

from __future__ import annotations

import re

from storage.errors import StoreError
from storage.text import plain

__all__ = [
    "BucketNotFound",
    "ConditionsIgnored",
    "SecretInOptions",
    "StorageForbidden",
    "StorageThrottled",
    "StorageUnreachable",
    "UnknownStorageOption",
    "storage_error",
]


class StorageUnreachable(StoreError):
    """Object storage does not answer, or answers with errors."""

    reason = "storage_unreachable"
    exit_code = 9


class StorageForbidden(StoreError):
    """Object storage refuses the credentials, or there are none."""

    reason = "storage_forbidden"
    exit_code = 9


class StorageThrottled(StoreError):
    """Object storage keeps asking to slow down."""

    reason = "storage_throttled"
    exit_code = 9
    retry_after_s = 30


class BucketNotFound(StoreError):
    """There is no such bucket."""

    reason = "bucket_not_found"


class ConditionsIgnored(StoreError):
    """The server ignores conditions on writes, so that two writers could destroy each other's work."""

    reason = "conditions_ignored"


class SecretInOptions(StoreError):
    """A secret was given where others can read it."""

    reason = "secret_in_options"


class UnknownStorageOption(StoreError):
    """A storage option that does not exist, or whose value cannot be used."""

    reason = "unknown_storage_option"


_QUERY = re.compile(r"\?[^\s\"'<>)]*")
_STATUS = re.compile(r"status code: (\d{3})|status: (\d{3})|HTTP status (?:client|server) error \((\d{3})")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
# Where the default chain looks for credentials when it found none in the environment or in files.
_METADATA = ("169.254.169.254", "169.254.170.2", "metadata.google.internal", "/latest/api/token")
_NO_CREDENTIALS = (
    "no credentials",
    "missing credentials",
    "credential provider",
    "could not find credentials",
)
_SHOWN = 300


def storage_error(shown: str, error: BaseException) -> StoreError:
    """Return the error for what a client library reports, whose own text may contain signed addresses.

    Args:
        shown: The location, for the message.
        error: What the library raised.
    """
    text = str(error)
    first = plain(_QUERY.sub("", text.split("\n\nDebug source")[0].split("\n")[0]), _SHOWN)
    status, code = _first(_STATUS, text), _first(_CODE, text)
    kind = type(error).__name__
    if code == "NoSuchBucket" or "ContainerNotFound" in text:
        return BucketNotFound(f"{shown}: there is no such bucket: create it, or correct the address")
    if any(address in text for address in _METADATA) or any(word in text.lower() for word in _NO_CREDENTIALS):
        return StorageForbidden(
            f"{shown}: no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE (AZURE_STORAGE_ACCOUNT_KEY, GOOGLE_APPLICATION_CREDENTIALS) in the environment of "
            "every process, or give the machine a role"
        )
    if status in ("401", "403") or kind in ("PermissionDeniedError", "UnauthenticatedError"):
        return StorageForbidden(
            f"{shown}: access was refused ({code or status or kind}): check the credentials in the "
            "environment and the rights of their user on this prefix"
        )
    if status in ("429", "503") or code in ("SlowDown", "ServerBusy", "TooManyRequests"):
        return StorageThrottled(
            f"{shown}: the storage asks to slow down ({code or status}), after several tries: run the same "
            "command again later, or with fewer workers"
        )
    detail = f"HTTP status {status}" if status else first
    return StorageUnreachable(
        f"{shown} cannot be reached or does not answer as expected ({detail}): check the endpoint and the "
        "network, then run the same command again"
    )


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return next((group for group in match.groups() if group), None) if match else None
