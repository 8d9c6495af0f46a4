"""One request and its answer as the guard handles them, in ASGI messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from serving.errors import Refusal

__all__ = [
    "Reply",
    "discard",
    "header_values",
    "receive_or_leave",
    "replay",
    "route_path",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

HIDDEN_HEADERS = frozenset({b"server", b"x-powered-by", b"x-request-id"})


class Reply:
    """What goes back for one request: adds the request id, drops what tells about the server.

    Args:
        send: The server's.
        request_id: Names the request in logs and answers.
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
        """Whether the client waits for an answer that has not begun."""
        return self.status is None and not self.gone

    def note_disconnect(self) -> None:
        """Servers also report a disconnect after a complete answer; only an earlier one counts."""
        self.gone = self.gone or not self._complete

    async def send(self, message: Message) -> None:
        """The `send` of the service behind. A 500 is held back: the guard answers in its place."""
        if message["type"] == "http.response.start":
            self._replacing = message["status"] == 500
        if not self._replacing:
            await self._forward(message)

    async def refuse(self, refusal: Refusal, linger: Callable[[], Awaitable[None]] | None = None) -> None:
        """Answer with an error body; with `linger`, run that before the connection is closed."""
        self.reason = refusal.reason
        body = refusal.body
        headers = [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
        headers.append((b"content-length", str(len(body)).encode()))
        if linger is not None:
            headers.append((b"connection", b"close"))
        await self._forward({"type": "http.response.start", "status": refusal.status, "headers": headers})
        # The body is whole by its Content-Length; the message that ends the connection comes later.
        await self._forward({"type": "http.response.body", "body": body, "more_body": linger is not None})
        if linger is not None:
            await linger()
            await self._forward({"type": "http.response.body", "body": b"", "more_body": False})

    async def _forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in HIDDEN_HEADERS]
            message = {**message, "headers": [*kept, *self._id_header]}
        try:
            await self._server_send(message)
        except OSError:
            self.gone = True
            raise
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._complete = True


def receive_or_leave(receive: Receive, failed: Callable[[Exception], None]) -> Receive:
    """The server's `receive`, whose failure means the client is gone: Ray Serve raises where it left."""

    async def received() -> Message:
        try:
            return await receive()
        except Exception as error:
            failed(error)
            return {"type": "http.disconnect"}

    return received


def replay(body: bytes, receive: Receive, reply: Reply) -> Receive:
    """The `receive` of the service behind: the body in one message, then only a disconnect."""
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
    """Read on and forget what comes, until the end of the body or a limit."""
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
    """All values of one header; `name` in small letters."""
    return [value for key, value in headers if key.lower() == name]


def route_path(scope: Scope) -> str | None:
    """The path as routed, or None where the client spelled it in another way (percent signs)."""
    path: str = scope["path"]
    raw: bytes | None = scope.get("raw_path")
    if raw is not None and raw != path.encode("utf-8", "surrogatepass"):
        return None
    return path.removeprefix(scope.get("root_path", ""))
