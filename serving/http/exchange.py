"""One request and its response in ASGI messages, as the guard handles them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from serving.errors import Refusal

__all__ = [
    "FRONT_EXTENSION",
    "NOSNIFF",
    "ASGIApp",
    "Headers",
    "Message",
    "Receive",
    "Reply",
    "Scope",
    "Send",
    "discard",
    "header_values",
    "receive_or_disconnect",
    "replay",
    "request_id_of",
    "route_path",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
FRONT_EXTENSION = "placeray.front"  # in the scope's extensions, which no client can set
HIDDEN_HEADERS = frozenset({b"server", b"x-powered-by", b"x-request-id"})
NOSNIFF = (b"x-content-type-options", b"nosniff")


class Reply:
    """The response to one request: adds request id and `nosniff`, removes headers that identify the server.

    Args:
        send: ASGI's.
        request_id: Identifies the request in logs and responses.
        id_in_header: Whether `x-request-id` is added here and not by the server.
    """

    def __init__(self, send: Send, request_id: str, *, id_in_header: bool = True) -> None:
        self._server_send = send
        self._replacing = False
        self._complete = False
        self._id_header = [(b"x-request-id", request_id.encode())] if id_in_header else []
        self.request_id = request_id
        self.status: int | None = None
        self.reason: str | None = None
        self.gone = False

    @property
    def owed(self) -> bool:
        """Whether the client is waiting for a response that has not started."""
        return self.status is None and not self.gone

    def note_disconnect(self) -> None:
        """Record a disconnect; servers also report one after a complete response, which does not count."""
        self.gone = self.gone or not self._complete

    async def send(self, message: Message) -> None:
        """The `send` of the application. A 500 is not sent: the guard replaces it."""
        if message["type"] == "http.response.start":
            self._replacing = message["status"] == 500
        if not self._replacing:
            await self._forward(message)

    async def refuse(self, refusal: Refusal, linger: Callable[[], Awaitable[None]] | None = None) -> None:
        """Send an error response; `linger` runs before the connection is closed."""
        self.reason = refusal.reason
        body = refusal.body
        headers = [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
        headers.append((b"content-length", str(len(body)).encode()))
        if linger is not None:
            headers.append((b"connection", b"close"))
        await self._forward({"type": "http.response.start", "status": refusal.status, "headers": headers})
        # The body is complete by its Content-Length; the message that ends the connection follows later.
        await self._forward({"type": "http.response.body", "body": body, "more_body": linger is not None})
        if linger is not None:
            await linger()
            await self._forward({"type": "http.response.body", "body": b"", "more_body": False})

    async def _forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [pair for pair in message.get("headers", ()) if pair[0].lower() not in HIDDEN_HEADERS]
            if not header_values(headers, NOSNIFF[0]):
                headers.append(NOSNIFF)
            message = {**message, "headers": [*headers, *self._id_header]}
        try:
            await self._server_send(message)
        except OSError:
            self.gone = True
            raise
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._complete = True


def receive_or_disconnect(receive: Receive, failed: Callable[[Exception], None]) -> Receive:
    """Wrap the server's `receive` so that an exception is a disconnect: Ray Serve raises in that case."""

    async def received() -> Message:
        try:
            return await receive()
        except Exception as error:
            failed(error)
            return {"type": "http.disconnect"}

    return received


def replay(body: bytes, receive: Receive, reply: Reply) -> Receive:
    """Return the `receive` of the application: the body in one message, then only a disconnect."""
    pending = [body]

    async def replayed() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                reply.note_disconnect()
                return message

    return replayed


async def discard(receive: Receive, *, max_bytes: int, timeout_s: float) -> None:
    """Read and discard the rest of the body, up to a limit."""
    try:
        async with asyncio.timeout(timeout_s):
            while max_bytes > 0:
                message = await receive()
                if not message.get("more_body", False):
                    return
                max_bytes -= len(message.get("body", b""))
    except TimeoutError:
        return


def header_values(headers: Headers, name: bytes) -> list[bytes]:
    """Return all values of a header; `name` in lower case."""
    return [value for key, value in headers if key.lower() == name]


def request_id_of(headers: Headers) -> str | None:
    """Return the client's request id; None where it has none, several or an invalid one."""
    values = header_values(headers, b"x-request-id")
    if len(values) == 1 and REQUEST_ID.fullmatch(values[0]):
        return values[0].decode("ascii")
    return None


def route_path(scope: Scope) -> str | None:
    """Return the path as routed; None where the client percent-encoded it."""
    path: str = scope["path"]
    raw: bytes | None = scope.get("raw_path")
    if raw is not None and raw != path.encode("utf-8", "surrogatepass"):
        return None
    return path.removeprefix(scope.get("root_path", ""))
