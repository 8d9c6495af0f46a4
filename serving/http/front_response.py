"""The response to one request, as the front in Ray Serve's proxies sends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from serving.errors import Refusal, internal_error
from serving.http.exchange import NOSNIFF, Headers, Message, Send, header_values

__all__ = ["FrontResponse"]


class FrontResponse:
    """Passes messages on, with the JSON body of all errors, and delays closing while a body is unread.

    Args:
        send: ASGI's.
        unread: Whether a part of the request's body has not been received.

    Attributes:
        started: Whether the status was sent.
    """

    def __init__(self, send: Send, unread: Callable[[], bool]) -> None:
        self._send = send
        self._unread = unread
        self._replaced = False
        self._sized = False
        self._status = 0
        self._end_owed = False
        self.started = False

    async def send(self, message: Message) -> None:
        """The `send` of Ray Serve."""
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            replacement = _error_of_ray(message["status"], message.get("headers", []))
            if replacement is not None:
                self._replaced = True
                await self.refuse(replacement, header_values(message["headers"], b"x-request-id"))
                return
            await self._start(message["status"], list(message.get("headers", [])))
        elif message["type"] == "http.response.body":
            await self._body(message.get("body", b""), more=message.get("more_body", False))
        else:
            await self._send(message)

    async def refuse(self, refusal: Refusal, request_id: list[bytes]) -> None:
        """Send an error."""
        body = refusal.body
        headers = [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
        headers += [(b"content-length", b"%d" % len(body)), *((b"x-request-id", one) for one in request_id)]
        await self._start(refusal.status, headers)
        await self._body(body, more=False)

    async def finish(self, discard: Callable[[], Awaitable[None]]) -> None:
        """Read the rest of the request within limits, then end the response: no connection is reset."""
        if self._end_owed:
            await discard()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, status: int, headers: Headers) -> None:
        self.started = True
        self._status = status
        self._sized = bool(header_values(headers, b"content-length"))
        if not header_values(headers, NOSNIFF[0]):
            headers = [*headers, NOSNIFF]
        if self._unread() and not header_values(headers, b"connection"):
            headers = [*headers, (b"connection", b"close")]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _body(self, body: bytes, *, more: bool) -> None:
        # By its Content-Length the client knows that it has the whole body. A slow one (408) is not awaited.
        self._end_owed = not more and self._sized and self._status != 408 and self._unread()
        await self._send({"type": "http.response.body", "body": body, "more_body": more or self._end_owed})


def _error_of_ray(status: int, headers: Headers) -> Refusal | None:
    """Return the error that replaces one of Ray Serve itself, whose body is text; None for all else."""
    kinds = header_values(headers, b"content-type")
    if status < 400 or (kinds and not kinds[0].startswith(b"text/plain")):
        return None
    if status in (429, 503):
        retry = header_values(headers, b"retry-after")
        seconds = int(retry[0]) if retry and retry[0].isdigit() else 1
        return Refusal(503, "overloaded", "Too many requests at once; try again after Retry-After.", seconds)
    if status == 408:
        return Refusal(503, "timeout", "The request took too long; try again after Retry-After.", 1)
    if status == 404:
        return Refusal(404, "not_found", "This path does not exist; see /openapi.json.")
    if status < 500:
        return Refusal(status, "bad_request", "The request cannot be served; see /openapi.json.")
    return internal_error()
