"""Why the bytes of one photo cannot be had."""

from __future__ import annotations

from storage.errors import RejectedError

__all__ = ["PhotoUnavailable"]


class PhotoUnavailable(RejectedError):
    """The bytes of a photo cannot be read, after bounded retries.

    Attributes:
        reason: missing, forbidden, throttled, truncated, unreachable, unreadable, too_large or
            unsupported_uri.
    """

    reason = "photo_unavailable"
