"""A client at the level of ASGI messages, and the application that the guard's tests protect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

from serving.http.exchange import ASGIApp, Message, Receive, Scope, Send

TOKEN = "read-token-0123456789"
ADMIN_TOKEN = "admin-token-0123456789"
METRICS_TOKEN = "metrics-token-0123456789"
TOKENS = {TOKEN: "read", METRICS_TOKEN: "metrics", ADMIN_TOKEN: "admin"}
SECRET_PATH = "/srv/secret/places.lance"
# Text that no response may contain: paths, stack traces, names and versions of software.
TELLTALES = ("Traceback", "File ", ".py", "/srv", "uvicorn", "starlette", "python", "Error", "secret")


class EchoApp:
    """Echoes the request, or fails as the path says."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        assert not message.get("more_body"), "the body must arrive in one message"
        self.bodies.append(message["body"])
        self.scopes.append(scope)
        if scope["path"] == "/raise":
            raise OverflowError(f"secret of {SECRET_PATH}")
        if scope["path"] == "/silent":
            return
        status = 500 if scope["path"] in ("/500", "/500-then-raise") else 200
        content = {"bytes": len(message["body"]), "state": scope["state"], "path": scope["path"]}
        headers = [(b"content-type", b"application/json"), (b"server", b"secret/1.0")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if scope["path"] == "/raise-late":
            await send({"type": "http.response.body", "body": b"[", "more_body": True})
            raise OverflowError(f"secret of {SECRET_PATH}")
        text = f"secret of {SECRET_PATH}".encode() if status == 500 else json.dumps(content).encode()
        await send({"type": "http.response.body", "body": text})
        if scope["path"] == "/500-then-raise":
            raise OverflowError(f"secret of {SECRET_PATH}")


class Reply:
    """The response to one `ask`."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.bytes_read = 0
        self.messages_read = 0

    @property
    def status(self) -> int | None:
        return int(self.sent[0]["status"]) if self.sent else None

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def complete(self) -> bool:
        return len(self.sent) > 1 and not self.sent[-1].get("more_body", False)

    @property
    def reason(self) -> str:
        """The reason of an error response, after checking its format and that it leaks nothing."""
        content = json.loads(self.body)
        assert list(content) == ["error"]
        assert sorted(content["error"]) == ["message", "reason"]
        assert self.complete
        assert self.headers["content-type"] == "application/json"
        assert int(self.headers["content-length"]) == len(self.body)
        check_no_telltale(self.headers, self.body)
        return str(content["error"]["reason"])


def check_no_telltale(headers: MutableMapping[str, str], body: bytes) -> None:
    assert "server" not in headers
    everything = repr(headers) + body.decode()
    assert not [word for word in TELLTALES if word in everything], everything


async def ask(
    app: ASGIApp,
    chunks: Iterable[bytes] = (),
    *,
    method: str = "POST",
    path: str = "/v1/query",
    raw_path: str | None = None,
    root_path: str = "",
    headers: Iterable[tuple[str, str]] = (),
    length: int | None = None,
    then: str = "end",
    extensions: Mapping[str, Any] | None = None,
) -> Reply:
    """Send one request.

    Args:
        chunks: The body; none: a request without a body.
        length: Content-Length; none: the body goes chunked.
        extensions: Of the scope.
        then: What follows the chunks: `end` of the body, its end and a `leave`, `stall` or `disconnect`.
    """
    reply, pieces, over = Reply(), iter(chunks), asyncio.Event()
    all_headers = [(name.lower().encode(), value.encode()) for name, value in headers]
    if not any(name == b"host" for name, _ in all_headers):
        all_headers.append((b"host", b"localhost"))
    if length is not None:
        all_headers.append((b"content-length", str(length).encode()))
    elif chunks:
        all_headers.append((b"transfer-encoding", b"chunked"))
    body_ended = False

    async def receive() -> Message:
        nonlocal body_ended
        await asyncio.sleep(0)
        reply.messages_read += 1
        piece = next(pieces, None)
        if piece is not None:
            reply.bytes_read += len(piece)
            return {"type": "http.request", "body": piece, "more_body": True}
        if then in ("end", "leave") and not body_ended:
            body_ended = True
            return {"type": "http.request", "body": b"", "more_body": False}
        if then in ("end", "stall"):
            await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        reply.sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            over.set()

    raw = raw_path if raw_path is not None else path
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": raw.encode(),
        "root_path": root_path,
        "query_string": b"",
        "headers": all_headers,
        "state": {"from_lifespan": 1},
        "extensions": dict(extensions or {}),
    }
    await app(scope, receive, send)
    return reply


def bearer(token: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {token}")]
