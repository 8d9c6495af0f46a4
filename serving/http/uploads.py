"""Receives request bodies within limits on size, time, number and memory."""

from __future__ import annotations

import asyncio

from serving.errors import Refusal
from serving.http.exchange import Headers, Receive, header_values

__all__ = ["MAX_BODY_BYTES", "ClientGone", "Uploads", "has_body", "too_many_uploads"]

MAX_BODY_BYTES = 64 << 20  # the largest value of `ServeSettings.max_body_mib`


class ClientGone(Exception):
    """The client disconnected before its request was complete."""


class Uploads:
    """Receives bodies and bounds all uploads in progress together.

    Args:
        max_body_bytes: Larger bodies get 413.
        timeout_s: A body that takes longer gets 408.
        max_concurrent: Concurrent uploads; beyond it 503. Requests without a body do not count.
        max_total_bytes: Bytes held by all bodies being received; beyond it 503.
        retry_after_s: Value of Retry-After in a 503.
    """

    def __init__(
        self,
        *,
        max_body_bytes: int,
        timeout_s: float,
        max_concurrent: int,
        max_total_bytes: int,
        retry_after_s: int,
    ) -> None:
        self._max_body_bytes = max_body_bytes
        self._timeout_s = timeout_s
        self._max_concurrent = max_concurrent
        self._max_total_bytes = max_total_bytes
        self._retry_after_s = retry_after_s
        self._active = 0
        self._total_bytes = 0

    @property
    def active(self) -> int:
        """Number of bodies being received now."""
        return self._active

    async def receive(self, receive: Receive, headers: Headers) -> bytes:
        """Check what the headers say about the body, then receive all of it.

        Args:
            receive: ASGI's.
            headers: Of the request.

        Raises:
            ClientGone: the client disconnected first.
            Refusal: reason `unsupported_encoding`, `bad_request`, `body_too_large`, `receive_timeout` or
                `overloaded`.
        """
        self._check_headers(headers)
        counts = has_body(headers)
        if counts and self._active >= self._max_concurrent:
            raise too_many_uploads(self._retry_after_s)
        body = bytearray()
        self._active += counts
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    chunk: bytes = message.get("body", b"")
                    if len(body) + len(chunk) > self._max_body_bytes:
                        raise self._too_large()
                    if self._total_bytes + len(chunk) > self._max_total_bytes:
                        raise too_many_uploads(self._retry_after_s)
                    body += chunk
                    self._total_bytes += len(chunk)
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            text = f"The body was not received within {self._timeout_s:g} s; send a smaller image."
            raise Refusal(408, "receive_timeout", text) from None
        finally:
            self._active -= counts
            self._total_bytes -= len(body)

    def _check_headers(self, headers: Headers) -> None:
        encodings = header_values(headers, b"content-encoding")
        transfers = header_values(headers, b"transfer-encoding")
        lengths = header_values(headers, b"content-length")
        if any(value.strip().lower() not in (b"", b"identity") for value in encodings):
            raise Refusal(415, "unsupported_encoding", "Send the body without a Content-Encoding.")
        if any(value.strip().lower() != b"chunked" for value in transfers):
            raise Refusal(
                415, "unsupported_encoding", "Send the body plain or chunked, without another encoding."
            )
        if len(lengths) > 1 or (lengths and (transfers or not lengths[0].isdigit())):
            raise Refusal(400, "bad_request", "Give the body's length once: Content-Length or chunked.")
        # Compared by the number of digits first: int() of thousands of digits is slow or refused.
        digits = lengths[0].lstrip(b"0") if lengths else b""
        if len(digits) > 18 or int(digits or b"0") > self._max_body_bytes:
            raise self._too_large()

    def _too_large(self) -> Refusal:
        limit = self._max_body_bytes
        return Refusal(413, "body_too_large", f"The body is larger than {limit} bytes; send a smaller image.")


def too_many_uploads(retry_after_s: int) -> Refusal:
    """Return the error of an upload beyond the limits of all together."""
    message = "Too many uploads at once; try again after the seconds in Retry-After."
    return Refusal(503, "overloaded", message, retry_after_s)


def has_body(headers: Headers) -> bool:
    """Return whether the headers announce a body."""
    lengths = header_values(headers, b"content-length")
    return any(value.strip(b" 0") for value in lengths) or bool(header_values(headers, b"transfer-encoding"))
