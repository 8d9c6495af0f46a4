"""The proxy's protocol behind a real uvicorn: limits before the body, trailers, errors in JSON."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
import tracemalloc
from contextlib import suppress

import pytest

from serving.http import protocol
from serving.http.guard import Guard
from serving.http.headers import MAX_HEADER_BYTES, MAX_HEADERS
from serving.http.protocol import BoundedProtocol
from tests.support.asgi_client import TOKEN, TOKENS, EchoApp
from tests.support.http_server import PATIENCE_S, error_reason, head, read_to_the_end, served

GET = b"GET /v1/info HTTP/1.1\r\nHost: localhost\r\n"


def answered(port: int, *pieces: bytes) -> tuple[int, str]:
    """Status and reason of the response to bytes as they are; the server closes."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
        for piece in pieces:
            with suppress(ConnectionError):  # refused before all was sent
                client.sendall(piece)
        status, body = read_to_the_end(client)
    return status, error_reason(body)


@pytest.mark.parametrize(
    "pieces",
    [
        [GET + b"X-Large: " + b"x" * (MAX_HEADER_BYTES + 1) + b"\r\n\r\n"],
        [GET, b"X-Large: ", *[b"x" * 10_000] * 40],
        [GET, *[b"X-Some: " + b"x" * 1000 + b"\r\n"] * 70, b"\r\n"],
        [GET + b"X: y\r\n" * MAX_HEADERS + b"\r\n"],
        [b"GET /" + b"x" * MAX_HEADER_BYTES + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"],
        [b"GET /", *[b"x" * 10_000] * 40],
    ],
    ids=["one", "one in pieces", "many in pieces", "number", "target", "target in pieces"],
)
def test_headers_without_end_get_431_and_reach_nobody(pieces: list[bytes]) -> None:
    app = EchoApp()
    with served(app, BoundedProtocol) as port:
        assert answered(port, *pieces) == (431, "headers_too_large")
        fair = GET + b"X-Fair: " + b"x" * (MAX_HEADER_BYTES - 200) + b"\r\nConnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
            client.sendall(fair)
            assert read_to_the_end(client)[0] == 200
    assert len(app.scopes) == 1


def test_a_flood_of_headers_is_held_by_nobody() -> None:
    sent = 0
    with (
        served(EchoApp(), BoundedProtocol) as port,
        socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client,
    ):
        client.sendall(GET)
        tracemalloc.start()
        with suppress(ConnectionError):
            while sent < 100 << 20:
                client.sendall(b"X-Some: " + b"x" * 65_536 + b"\r\n")
                sent += 65_546
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert sent < 20 << 20, "what is discarded and what the sockets hold"
    assert peak < 4 << 20


def test_each_request_of_a_connection_may_use_the_whole_limit() -> None:
    app = EchoApp()
    with served(Guard(app), BoundedProtocol) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        for _ in range(3):
            connection.request("POST", "/v1/query", b"x" * 300_000, {"X-Fair": "x" * 40_000})
            response = connection.getresponse()
            assert json.loads(response.read())["bytes"] == 300_000
        connection.close()
    assert len(app.scopes) == 3


def test_slow_headers_get_408_and_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.3)
    app = EchoApp()
    with served(Guard(app), BoundedProtocol) as port:
        assert answered(port, GET, b"X-Slow: ") == (408, "receive_timeout")
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
            assert client.recv(100) == b""
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:  # a further request
            client.sendall(head("HEAD /v1/info"))
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
            time.sleep(0.5)  # idle, which keep-alive allows
            client.sendall(GET)
            assert read_to_the_end(client)[0] == 408
        with socket.create_connection(
            ("127.0.0.1", port), PATIENCE_S
        ) as client:  # a slow body is no slow head
            client.sendall(head("POST /v1/query", "Content-Length: 2", "Connection: close") + b"a")
            time.sleep(0.5)
            client.sendall(b"b")
            assert read_to_the_end(client)[0] == 200
    assert len(app.scopes) == 2


def test_a_server_that_was_held_up_reads_before_it_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.2)

    class Slow(BoundedProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            time.sleep(0.6)

    with (
        served(Guard(EchoApp()), Slow) as port,
        socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client,
    ):
        client.sendall(head("GET /v1/info", "Connection: close"))
        assert read_to_the_end(client)[0] == 200


@pytest.mark.parametrize("field", [f"Authorization: Bearer {TOKEN}", "X-Any: 1"])
@pytest.mark.parametrize("split", [False, True])
def test_trailers_are_refused_and_never_become_headers(field: str, *, split: bool) -> None:
    app = EchoApp()
    request = head("POST /v1/query", "Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n"
    trailer = f"{field}\r\n\r\n".encode()
    for guard in (Guard(app), Guard(app, tokens=TOKENS)):
        with served(guard, BoundedProtocol) as port:
            status, reason = answered(port, *([request, trailer] if split else [request + trailer]))
            assert (status, reason) in [(400, "bad_request"), (401, "unauthorized")]
            assert status == 400 or split, "in one packet it is refused before anybody sees it"
    assert app.scopes == []


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://localhost/v1/info", "localhost", 200),
        ("http://localhost:80/v1/info?next=http://evil.example/", "localhost:80", 200),
        ("/v1/info?next=http://evil.example/", "localhost", 200),
        ("http://evil.example/v1/info", "localhost", 400),
        ("http://localhost/v1/info", "evil.example", 400),
        ("http://localhost@evil.example/v1/info", "localhost", 400),
        ("http://localhost:81/v1/info", "localhost", 400),
        ("http:///v1/info", "localhost", 400),
    ],
)
def test_a_target_with_a_host_names_the_one_in_host(target: str, host: str, status: int) -> None:
    app = EchoApp()
    with (
        served(Guard(app, allowed_hosts=["evil.example"]), BoundedProtocol) as port,
        socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client,
    ):
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert read_to_the_end(client)[0] == status
    assert len(app.scopes) == (status == 200)


@pytest.mark.parametrize("upgrade", ["websocket", "h2c", "TLS/1.0, HTTP/1.1"])
@pytest.mark.parametrize("guarded", [True, False])
def test_no_other_protocol_is_spoken(upgrade: str, *, guarded: bool) -> None:
    app = EchoApp()
    fields = ["Connection: Upgrade, close", f"Upgrade: {upgrade}", "Sec-WebSocket-Version: 13"]
    fields.append("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    with (
        served(Guard(app, tokens=TOKENS) if guarded else app, BoundedProtocol, ws="auto") as port,
        socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client,
    ):
        client.sendall(head("GET /v1/info", *fields))
        assert read_to_the_end(client)[0] == (401 if guarded else 200)
    assert [scope["type"] for scope in app.scopes] == ([] if guarded else ["http"])


@pytest.mark.parametrize(
    "junk",
    [
        *(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"),
        GET + b"Content-Length: x\r\n\r\n",
        GET + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        GET + b"a b: c\r\n\r\n",
        GET + b"\xff\xfe: c\r\n\r\n",
        GET + b"X: a\x00b\r\n\r\n",
    ],
)
def test_what_is_not_http_gets_the_json_of_all_errors(junk: bytes) -> None:
    app = EchoApp()
    with served(app, BoundedProtocol, server_header=True) as port:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
            client.sendall(junk)
            received = b""
            while piece := client.recv(65536):
                received += piece
        lines, _, body = received.partition(b"\r\n\r\n")
        assert lines.startswith(b"HTTP/1.1 400 ")
        assert error_reason(body) == "bad_request"
        names = [line.split(b":")[0].lower() for line in lines.split(b"\r\n")[1:]]
        assert b"server" not in names
        assert {b"x-request-id", b"x-content-type-options", b"content-type"} <= set(names)
    assert app.scopes == []


def test_no_response_names_the_server() -> None:
    with served(Guard(EchoApp()), BoundedProtocol, server_header=True) as port:
        for _ in range(2):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
            connection.request("GET", "/healthz")
            response = connection.getresponse()
            assert response.status == 200
            assert response.getheader("server") is None
            assert response.getheader("date")
            connection.close()
