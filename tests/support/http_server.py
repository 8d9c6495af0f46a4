"""A real uvicorn on loopback for one test, and requests written by hand."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

from serving.http.exchange import ASGIApp

__all__ = ["PATIENCE_S", "error_reason", "head", "read_to_the_end", "served"]

PATIENCE_S = 20.0  # only ends a test that hangs


@contextmanager
def served(
    app: ASGIApp, http_protocol: Any = "auto", *, server_header: bool = False, ws: Any = "none"
) -> Iterator[int]:
    """Port of a running server.

    Args:
        http_protocol: uvicorn's `http`: a name or a class.
        server_header: Whether uvicorn adds its name to responses, as under Ray Serve.
        ws: uvicorn's; `auto` under Ray Serve.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=http_protocol,
        loop="asyncio",
        ws=ws,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=server_header,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listener.close()
    assert not thread.is_alive()


def error_reason(body: bytes) -> str:
    """The reason of an error response."""
    error_body = json.loads(body)
    assert list(error_body) == ["error"]
    return str(error_body["error"]["reason"])


def head(request_line: str, *headers: str) -> bytes:
    """The head of a request."""
    return "\r\n".join([f"{request_line} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def read_to_the_end(client: socket.socket) -> tuple[int, bytes]:
    """Status and body of the one answer on a connection that the server closes."""
    received = b""
    with suppress(ConnectionResetError):  # the rest was sent in vain; the response came first
        while piece := client.recv(65536):
            received += piece
    lines, _, body = received.partition(b"\r\n\r\n")
    return int(lines.split()[1]), body
