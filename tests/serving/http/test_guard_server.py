"""The guard behind a real uvicorn on loopback, and clients that misbehave at the level of the socket."""

from __future__ import annotations

import http.client
import json
import select
import socket
import tracemalloc
from contextlib import suppress

import pytest

from serving.http.guard import Guard
from tests.support.asgi_client import ADMIN_TOKEN, TOKEN, TOKENS, EchoApp, check_no_telltale
from tests.support.http_server import PATIENCE_S, error_reason, head, read_to_the_end, served

MIB = 1 << 20


def fetch(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        read = response.read()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, read
    finally:
        connection.close()


@pytest.fixture(params=["h11", "httptools"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_server_half_sent_uploads_get_408_while_others_are_answered(protocol: str) -> None:
    app = EchoApp()
    with served(Guard(app, receive_timeout_s=1.0), protocol) as port:
        clients = [socket.create_connection(("127.0.0.1", port), PATIENCE_S) for _ in range(12)]
        for number, client in enumerate(clients):
            length = "Transfer-Encoding: chunked" if number % 2 else "Content-Length: 1000000"
            client.sendall(head("POST /v1/query", length) + (b"5\r\nhalf-\r\n" if number % 2 else b"half-"))
        for _ in range(20):
            status, _, body = fetch(port, "POST", "/v1/query", b"x" * 300_000)
            assert (status, json.loads(body)["bytes"]) == (200, 300_000)
        assert not select.select(clients, [], [], 0)[0], "all twelve are still held"
        for client in clients:
            status, body = read_to_the_end(client)
            assert (status, error_reason(body)) == (408, "receive_timeout")
            client.close()
        assert fetch(port, "GET", "/readyz")[0] == 200
    assert len(app.bodies) == 21


@pytest.mark.parametrize("chunked", [False, True])
def test_server_refuses_100_mib_early_and_holds_little(protocol: str, chunked: bool) -> None:
    app = EchoApp()
    sent = 0
    piece = b"x" * 65536
    with served(Guard(app, max_body_bytes=2 * MIB), protocol) as port:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
            tracemalloc.start()
            length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {100 * MIB}"
            client.sendall(head("POST /v1/query", length))
            framed = b"10000\r\n" + piece + b"\r\n" if chunked else piece
            # Like curl: continue sending until a response comes.
            with suppress(ConnectionError):
                while sent < 100 * MIB and not select.select([client], [], [], 0)[0]:
                    client.sendall(framed)
                    sent += len(piece)
            status, body = read_to_the_end(client)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert fetch(port, "POST", "/v1/query", b"abc")[0] == 200
    assert (status, error_reason(body)) == (413, "body_too_large")
    assert sent < 20 * MIB, "what the guard reads and what the sockets hold"
    assert peak < 8 * MIB
    assert app.bodies == [b"abc"]


def test_server_with_expect_continue_is_refused_before_the_body(protocol: str) -> None:
    with (
        served(Guard(EchoApp(), max_body_bytes=MIB), protocol) as port,
        socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client,
    ):
        client.sendall(head("POST /v1/query", f"Content-Length: {100 * MIB}", "Expect: 100-continue"))
        status, body = read_to_the_end(client)
        assert (status, error_reason(body)) == (413, "body_too_large"), "and no 100"


def test_server_lying_lengths_never_reach_the_app(protocol: str) -> None:
    app = EchoApp()
    with served(Guard(app, receive_timeout_s=0.2), protocol) as port:
        for lines, expected in [
            (("Content-Length: 9",), 408),
            (("Content-Length: 3", "Content-Length: 30"), 400),
            (("Content-Length: -1",), 400),
        ]:
            with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
                client.sendall(head("POST /v1/query", *lines, "Connection: close") + b"abc")
                assert read_to_the_end(client)[0] == expected, lines
    assert app.bodies == []


def test_server_clients_that_leave_amid_the_body_free_everything(protocol: str) -> None:
    app = EchoApp()
    guard = Guard(app, max_receiving=8, receive_timeout_s=PATIENCE_S)
    with served(guard, protocol) as port:
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
                client.sendall(head("POST /v1/query", "Content-Length: 1000000") + b"half")
        # Leaving is noticed within a few turns of the server's loop; until then 503 is the right answer.
        for _ in range(1000):
            if fetch(port, "POST", "/v1/query", b"abc")[0] == 200 and guard.receiving == 0:
                break
        assert guard.receiving == 0
    assert set(app.bodies) == {b"abc"}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/query",
        "/v1%2fquery",
        "//v1/query",
        "/healthz/",
        "//healthz",
        "/%2fhealthz",
        "/healthz%2f",
        "/healthz%2f..%2fv1%2fquery",
        "/healthz/../v1/query",
        "/%68ealthz",
        "/healthz%00",
        "/healthz;/v1/query",
    ],
)
def test_server_token_table(protocol: str, path: str) -> None:
    app = EchoApp()
    with served(Guard(app, tokens=TOKENS), protocol) as port:
        for token, expected in [(None, 401), ("wrong", 401), (TOKEN, 200), (ADMIN_TOKEN, 200)]:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            for method, sent in [("GET", None), ("POST", b"x" * 4_000), ("POST", b"x" * 400_000)]:
                # Who has no token is not waited for: a large upload may be reset while it is sent.
                with suppress(*([ConnectionError] if expected == 401 and len(sent or b"") > 4_000 else [])):
                    status, answered, body = fetch(port, method, path, sent, headers)
                assert status == expected, (method, token)
                if expected == 401:
                    assert error_reason(body) == "unauthorized"
                    assert "www-authenticate" in answered
                    check_no_telltale(answered, body)
        assert fetch(port, "GET", "/healthz?verbose=1")[0] == 200
    assert len(app.bodies) == 7


def test_server_failures_tell_nothing(protocol: str) -> None:
    with served(Guard(EchoApp()), protocol) as port:
        for path in ("/raise", "/silent", "/500", "/500-then-raise"):
            status, headers, body = fetch(port, "POST", path, b"abc", {"X-Request-Id": "id-9"})
            assert (status, error_reason(body), headers["x-request-id"]) == (500, "internal", "id-9")
            check_no_telltale(headers, body)
        with pytest.raises(http.client.IncompleteRead):
            fetch(port, "POST", "/raise-late", b"abc")
        assert fetch(port, "GET", "/readyz")[0] == 200


def test_server_refusal_without_a_body_keeps_the_connection(protocol: str) -> None:
    with served(Guard(EchoApp(), tokens=TOKENS), protocol) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        for _ in range(3):
            connection.request("GET", "/v1/info")
            response = connection.getresponse()
            assert response.status == 401
            assert response.getheader("connection") != "close"
            response.read()
        connection.close()
