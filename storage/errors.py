"""Named errors of the store; each message ends with the next step to take."""


class StoreError(Exception):
    """Base of every error the store raises on purpose."""


class StoreNotFound(StoreError):
    """There is no store at this URI."""


class StoreLocked(StoreError):
    """Another writer holds the lease, or this writer has lost it."""


class CardMismatch(StoreError):
    """The store's vectors were made by something else than the model at hand, or by a newer format."""


class CorruptStore(StoreError):
    """What is on disk contradicts itself or cannot be read."""


class OutOfSpace(StoreError):
    """The disk under the store is full; everything committed before is still there."""


class InvalidBatch(StoreError):
    """Rows or descriptors that must not enter the store, or a query descriptor that cannot be searched."""
