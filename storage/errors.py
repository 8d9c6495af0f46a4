"""The errors that a user can cause or mend; each message ends with the next step to take."""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "CardMismatch",
    "CorruptStore",
    "InvalidBatch",
    "NotReadable",
    "NotWritable",
    "OutOfSpace",
    "PlacerayError",
    "RejectedError",
    "StoreError",
    "StoreLocked",
    "StoreNotFound",
    "error_from_dict",
    "repair_command",
]


class PlacerayError(Exception):
    """Base of every error that a user can cause or mend.

    A subclass with a `reason` of its own can be rebuilt in another process, see `to_dict`.

    Attributes:
        reason: Machine-readable, such as `store_locked`.
        exit_code: What the command line ends with.
        http_status: What the service answers with; None where no request can cause it.
        http_reason: Reason that the service gives instead, where the exact one is not the client's concern.
        http_message: Message that the service gives instead, where the exact one names files of the machine.
        retry_after_s: When a client may try again, or None.
    """

    reason: str = "error"
    exit_code: ClassVar[int] = 2
    http_status: int | None = None
    http_reason: ClassVar[str | None] = None
    http_message: ClassVar[str | None] = None
    retry_after_s: int | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "reason" in cls.__dict__:
            other = _KINDS.setdefault(cls.reason, cls)
            if other.__qualname__ != cls.__qualname__:
                raise TypeError(f"{cls.__name__} and {other.__name__} share the reason {cls.reason!r}")

    @property
    def message(self) -> str:
        """What happened and what to do next."""
        return str(self)

    def to_dict(self) -> dict[str, str]:
        """Return the error as plain text, for a process that gets no exceptions; see `error_from_dict`."""
        return {"kind": type(self).reason, "reason": self.reason, "message": self.message}


class RejectedError(PlacerayError):
    """Input that cannot be used, for one of several reasons.

    Args:
        reason: Machine-readable.
        message: What is wrong and what to do next.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])


_KINDS: dict[str, type[PlacerayError]] = {}


def error_from_dict(values: dict[str, str]) -> PlacerayError:
    """Rebuild an error that another process reported by `to_dict`.

    The class is that of the reporting process where this process has imported it, else `PlacerayError`.
    """
    kind = _KINDS.get(values["kind"], PlacerayError)
    if issubclass(kind, RejectedError):
        return kind(values["reason"], values["message"])
    error = kind(values["message"])
    error.reason = values["reason"]
    return error


class StoreError(PlacerayError):
    """Base of every error the store raises on purpose."""

    reason = "store_error"
    http_status = 503
    http_reason = "store_unavailable"
    http_message = "The store cannot be read at the moment; try again after Retry-After."
    retry_after_s = 5


class StoreNotFound(StoreError):
    """There is no store at this URI."""

    reason = "store_not_found"


class StoreLocked(StoreError):
    """Another writer holds the lease, or this writer has lost it."""

    reason = "store_locked"
    exit_code = 4


class CardMismatch(StoreError):
    """The store was made by another model than the one at hand, or by a newer format."""

    reason = "card_mismatch"
    exit_code = 5


class CorruptStore(StoreError):
    """What is on disk contradicts itself or cannot be read."""

    reason = "corrupt_store"
    exit_code = 6


class OutOfSpace(StoreError):
    """The disk under the store is full; everything committed before is still there."""

    reason = "out_of_space"
    exit_code = 7


class NotWritable(StoreError):
    """A folder that must be written is on a read-only file system or belongs to another user."""

    reason = "not_writable"


class NotReadable(StoreError):
    """A file of the store cannot be read by this user."""

    reason = "not_readable"


class InvalidBatch(StoreError):
    """Rows or descriptors that must not enter the store, or a query descriptor that cannot be searched."""

    reason = "invalid_batch"
    http_reason = "model_fault"
    http_message = "The model gave numbers that cannot be searched for this photo; tell the operator."


def repair_command(folder: object) -> str:
    """Return the next step for damage that `placeray verify --repair` removes, as the end of a message."""
    return f"run placeray verify --store {folder} --repair"
