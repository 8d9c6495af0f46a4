"""The middleware of Ray Serve's proxies, before a stand-in of the proxy and before the guard."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any

import pytest

from serving.http.exchange import Message, Receive, Scope, Send
from serving.http.front import Front, FrontSettings, middlewares
from serving.http.guard import Guard
from serving.http.protocol import BoundedProtocol
from serving.http.tokens import TokenTable
from tests.support.asgi_client import TOKEN, TOKENS, EchoApp, Reply, ask, bearer
from tests.support.http_server import PATIENCE_S, head, read_to_the_end, served

MIB = 1 << 20
CLOSED = FrontSettings(digests=TokenTable(TOKENS).digests)


def run(coroutine: Coroutine[Any, Any, Reply]) -> Reply:
    return asyncio.run(asyncio.wait_for(coroutine, 20))


class Ray:
    """Answers like Ray Serve's proxy by itself, or not at all."""

    def __init__(self, status: int, kind: bytes = b"text/plain", **headers: bytes) -> None:
        self._status = status
        named = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
        self._headers = [(b"content-type", kind), (b"x-request-id", b"id-of-ray"), *named]
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if self._status:
            await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
            await send({"type": "http.response.body", "body": b"Traceback of ray 2.60 at /srv"})


def test_the_front_is_installed_by_two_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = FrontSettings(digests=TokenTable(TOKENS).digests, max_uploads=7)
    environment = settings.environment()
    assert sorted(environment) == ["PLACERAY_FRONT", "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]
    assert not [token for token in TOKENS if token in repr(environment)], "only digests leave"
    assert FrontSettings.from_environment(environment) == settings
    assert FrontSettings.from_environment({}) == FrontSettings()
    module, _, function = environment["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"].partition(":")
    assert (module, function) == (middlewares.__module__, middlewares.__name__)


# Tokens and uploads


def test_an_upload_without_a_token_is_answered_by_the_front_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = EchoApp()
    front = Front(Guard(app), settings=CLOSED)
    for headers in ([], bearer("wrong-token-0123456789"), bearer(TOKEN) + bearer(TOKEN)):
        reply = run(ask(front, [b"x" * 1000], length=1000, headers=headers))
        assert (reply.status, reply.reason) == (401, "unauthorized")
        assert reply.headers["www-authenticate"].startswith("Bearer ")
        assert len(reply.headers["x-request-id"]) == 32
    assert app.scopes == []
    lines = [record.msg for record in caplog.records if record.name == "serving.http.front"]
    assert [(line["status"], line["reason"]) for line in lines] == [(401, "unauthorized")] * 3
    assert run(ask(front, [b"x" * 1000], length=1000, headers=bearer(TOKEN))).status == 200
    assert app.scopes[0]["extensions"]["placeray.front"] == {"refused": {"unauthorized": 3}}
    assert run(ask(front, method="GET", path="/v1/info")).status == 200, "the guard decides on these"
    assert app.scopes[1]["extensions"]["placeray.front"] == {"refused": {}}, "told once"


def test_uploads_beyond_the_limit_get_503_and_others_are_answered() -> None:
    app = EchoApp()
    front = Front(Guard(app, receive_timeout_s=0.3), settings=FrontSettings(max_uploads=3))

    async def test() -> None:
        slow = [asyncio.create_task(ask(front, [b"x"], length=9, then="stall")) for _ in range(3)]
        await asyncio.sleep(0.05)
        refused = await ask(front, [b"abc"], length=3)
        assert (refused.status, refused.reason, refused.headers["retry-after"]) == (503, "overloaded", "1")
        assert (await ask(front, method="GET", path="/healthz")).status == 200
        assert {reply.status for reply in await asyncio.gather(*slow)} == {408}
        assert (await ask(front, [b"abc"], length=3)).status == 200, "room again"

    asyncio.run(asyncio.wait_for(test(), 20))


def test_received_uploads_and_departed_clients_free_their_places() -> None:
    front = Front(Guard(EchoApp()), settings=FrontSettings(max_uploads=1))
    for _ in range(3):
        assert run(ask(front, [b"abc"], length=3)).status == 200
    for _ in range(3):

        async def gone(scope: Scope, receive: Receive, send: Send) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        assert run(ask(Front(gone, settings=FrontSettings()), [b"a"], length=9, then="disconnect")).sent == []


def test_health_is_answered_while_hundreds_send_half_an_upload() -> None:
    guard = Guard(EchoApp(), tokens=TOKENS, receive_timeout_s=PATIENCE_S)
    with served(Front(guard, settings=CLOSED), BoundedProtocol) as port, ExitStack() as clients:
        for _ in range(400):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE_S))
            client.sendall(head("POST /v1/query", "Content-Length: 1000000") + b"half")
        started = time.monotonic()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE_S) as response:
            assert response.status == 200
        assert time.monotonic() - started < 5
        assert guard.receiving == 0


# Bodies that are refused


@pytest.mark.parametrize("mib", [3, 40])
def test_a_client_that_sends_all_before_it_reads_sees_why_it_was_refused(mib: int) -> None:
    front = Front(Guard(EchoApp(), max_body_bytes=2 * MIB), settings=FrontSettings())
    with served(front, BoundedProtocol) as port:
        for _ in range(5):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/query", data=b"x" * (mib * MIB))
            with pytest.raises(urllib.error.HTTPError) as caught:  # and no reset
                urllib.request.urlopen(request, timeout=PATIENCE_S)
            with caught.value as error:
                assert error.code == 413


def test_a_client_that_stops_amid_a_refused_body_is_closed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.http.front.DISCARD_S", 0.2)
    front = Front(Guard(EchoApp(), tokens=TOKENS), settings=CLOSED)
    with (
        served(front, BoundedProtocol) as port,
        socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client,
    ):
        client.sendall(head("POST /v1/query", "Content-Length: 1000000") + b"half")
        assert read_to_the_end(client)[0] == 401


def test_ray_is_given_no_more_of_a_body_than_any_service_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.http.front.MAX_BODY_BYTES", 1000)
    taken = 0

    async def greedy(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal taken
        try:
            async with asyncio.timeout(0.3):
                while True:
                    taken += len((await receive()).get("body", b""))
        except TimeoutError:
            await send({"type": "http.response.start", "status": 413, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    reply = run(ask(Front(greedy, settings=FrontSettings()), [b"x" * 400] * 1000, length=400_000))
    assert reply.status == 413
    assert taken <= 1200


# Headers


@pytest.mark.parametrize("request_id", ["", "x" * 65, "a b", "é", "../a"])
def test_a_response_has_one_request_id_whatever_was_sent(request_id: str) -> None:
    app = EchoApp()
    run(ask(Front(app, settings=FrontSettings()), headers=[("X-Request-Id", request_id)]))
    run(ask(Front(app, settings=FrontSettings()), headers=[("X-Request-Id", "a"), ("X-Request-Id", "b")]))
    run(ask(Front(app, settings=FrontSettings()), headers=[("X-Request-Id", "fine-1")]))
    sent = [[value for name, value in scope["headers"] if name == b"x-request-id"] for scope in app.scopes]
    assert sent == [[], [], [b"fine-1"]], "Ray Serve makes one where there is none"


def test_a_client_cannot_set_the_timeouts_of_ray() -> None:
    app = EchoApp()
    headers = [("X-Request-Timeout-Seconds", "0"), ("X-Request-Disconnect-Disabled", "?1"), ("X-Other", "1")]
    run(ask(Front(app, settings=FrontSettings()), headers=headers))
    assert [name for name, _ in app.scopes[0]["headers"] if name.startswith(b"x-")] == [b"x-other"]


# Ray Serve's own responses


@pytest.mark.parametrize(
    ("status", "expected", "reason"),
    [
        (503, 503, "overloaded"),
        (429, 503, "overloaded"),
        (408, 503, "timeout"),
        (404, 404, "not_found"),
        (400, 400, "bad_request"),
        (500, 500, "internal"),
        (0, 500, "internal"),
    ],
)
def test_errors_of_ray_get_the_json_of_all_errors(status: int, expected: int, reason: str) -> None:
    reply = run(ask(Front(Ray(status), settings=FrontSettings())))
    assert (reply.status, reply.reason) == (expected, reason)
    assert ("retry-after" in reply.headers) == (expected == 503)
    if status:
        assert reply.headers["x-request-id"] == "id-of-ray"


def test_the_wait_that_ray_names_is_kept() -> None:
    reply = run(ask(Front(Ray(503, retry_after=b"7"), settings=FrontSettings())))
    assert reply.headers["retry-after"] == "7"


def test_other_responses_pass_unchanged() -> None:
    for ray in (Ray(200), Ray(404, b"application/json")):
        reply = run(ask(Front(ray, settings=FrontSettings())))
        assert reply.body == b"Traceback of ray 2.60 at /srv"
        assert reply.headers["x-content-type-options"] == "nosniff"


def test_a_failure_of_the_proxy_is_an_error_of_ours_and_reaches_the_log_of_the_server() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise OverflowError("secret of /srv")

    sent: list[Message] = []

    async def test() -> None:
        async def receive() -> Message:
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        await Front(broken, settings=FrontSettings())(scope, receive, send)

    with pytest.raises(OverflowError):
        asyncio.run(test())
    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"])["error"]["reason"] == "internal"


def test_names_of_all_applications_are_not_shown() -> None:
    ray = Ray(200)
    front = Front(ray, settings=FrontSettings())
    assert run(ask(front, method="GET", path="/-/routes")).reason == "not_found"
    assert ray.scopes == []
    assert run(ask(front, method="GET", path="/-/healthz")).status == 200, "load balancers ask for it"


def test_other_connections_go_to_ray() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: object) -> Any:
        return {}

    asyncio.run(Front(app, settings=FrontSettings())({"type": "websocket"}, nothing, nothing))
    assert seen == ["websocket"]
