"""The guard at the level of ASGI messages; with a real server in test_guard_server.py."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from itertools import repeat
from typing import Any, TypeVar

import pytest

from serving.http.exchange import Message, Receive, Scope, Send
from serving.http.guard import Guard
from tests.support.asgi_client import ADMIN_TOKEN, SECRET_PATH, TOKEN, TOKENS, EchoApp, Reply, ask, bearer

MIB = 1 << 20
HOST = (b"host", b"localhost")
Answered = TypeVar("Answered")


def run(coroutine: Coroutine[Any, Any, Answered]) -> Answered:
    return asyncio.run(asyncio.wait_for(coroutine, 20))


def log_lines(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    lines = [record.msg for record in caplog.records if record.name == "serving.http.guard"]
    return [line for line in lines if isinstance(line, dict) and line["event"] == event]


def only_reasons(counted: list[str]) -> Callable[[str, int | None, str | None, float], None]:
    def note(path: str, status: int | None, reason: str | None, seconds: float) -> None:
        if reason is not None:
            counted.append(reason)

    return note


# Bodies


@pytest.mark.parametrize("chunks", [[], [b""], [b"abc"], [b"a", b"", b"bc"], [b"x" * 1000] * 100])
@pytest.mark.parametrize("declared", [True, False])
def test_guard_hands_the_whole_body_on_in_one_message(chunks: list[bytes], declared: bool) -> None:
    app = EchoApp()
    length = sum(map(len, chunks)) if declared else None
    reply = run(ask(Guard(app), chunks, length=length))
    assert reply.status == 200
    assert app.bodies == [b"".join(chunks)]
    assert json.loads(reply.body)["bytes"] == len(app.bodies[0])


def test_guard_accepts_a_body_of_exactly_the_cap() -> None:
    app = EchoApp()
    assert run(ask(Guard(app, max_body_bytes=10), [b"12345", b"67890"])).status == 200
    assert run(ask(Guard(app, max_body_bytes=10), [b"1234567890"], length=10)).status == 200
    assert run(ask(Guard(app, max_body_bytes=10), [b"12345", b"678901"])).reason == "body_too_large"
    assert len(app.bodies) == 2


@pytest.mark.parametrize(
    ("length", "read_at_most"),
    [(100 * MIB, MIB), (10**40, MIB), (None, 3 * MIB), (1000, 3 * MIB)],
    ids=["declared", "absurd", "chunked", "lying"],
)
def test_guard_refuses_a_large_body_after_little_of_it(length: int | None, read_at_most: int) -> None:
    app = EchoApp()
    guard = Guard(app, max_body_bytes=2 * MIB)
    reply = run(ask(guard, repeat(b"x" * 65536, 1600), length=length))
    assert reply.status == 413
    assert reply.reason == "body_too_large"
    assert reply.headers["connection"] == "close"
    assert reply.bytes_read <= read_at_most
    assert app.bodies == []


def test_guard_answers_a_declared_large_body_before_reading() -> None:
    read_when_answered: list[int] = []

    async def test() -> None:
        reply = Reply()

        async def receive() -> Message:
            reply.messages_read += 1
            return {"type": "http.request", "body": b"x" * MIB, "more_body": True}

        async def send(message: Message) -> None:
            read_when_answered.append(reply.messages_read)

        headers = [HOST, (b"content-length", b"99999999999")]
        scope = {"type": "http", "method": "POST", "path": "/", "raw_path": b"/", "headers": headers}
        await Guard(EchoApp())(scope, receive, send)

    run(test())
    assert read_when_answered[:2] == [0, 0], "status and body are out before anything is read"


def test_guard_gives_a_client_that_stops_408_and_forgets_it() -> None:
    app = EchoApp()
    guard = Guard(app, receive_timeout_s=0.02)

    async def test() -> list[Reply]:
        return await asyncio.gather(*(ask(guard, [b"half"], length=9, then="stall") for _ in range(12)))

    replies = run(test())
    assert [reply.reason for reply in replies] == ["receive_timeout"] * 12
    assert {reply.status for reply in replies} == {408}
    assert app.bodies == []
    assert guard.receiving == 0


def test_guard_deadline_covers_the_whole_body_not_each_piece() -> None:
    async def test() -> int:
        answered = asyncio.Event()
        statuses = []

        async def receive() -> Message:  # a trickle that never ends
            assert not answered.is_set()
            await asyncio.sleep(0.005)
            return {"type": "http.request", "body": b"x", "more_body": True}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            elif not message.get("more_body"):
                answered.set()

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "headers": [HOST, (b"content-length", b"999")],
        }
        await Guard(EchoApp(), receive_timeout_s=0.05)(scope, receive, send)
        return int(statuses[0])

    assert run(test()) == 408


@pytest.mark.parametrize("chunks", [[], [b"half"]])
def test_guard_of_a_client_that_leaves_never_calls_the_app(chunks: list[bytes]) -> None:
    app = EchoApp()
    guard = Guard(app)
    reply = run(ask(guard, chunks, length=9, then="disconnect"))
    assert reply.sent == []
    assert app.bodies == []
    assert guard.receiving == 0


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ([("Content-Encoding", "gzip")], 415, "unsupported_encoding"),
        ([("Content-Encoding", "identity, br")], 415, "unsupported_encoding"),
        ([("Content-Encoding", "identity"), ("Content-Encoding", "deflate")], 415, "unsupported_encoding"),
        ([("Transfer-Encoding", "gzip, chunked")], 415, "unsupported_encoding"),
        ([("Content-Length", "3"), ("Content-Length", "4")], 400, "bad_request"),
        ([("Content-Length", "3"), ("Transfer-Encoding", "chunked")], 400, "bad_request"),
        ([("Content-Length", "-3")], 400, "bad_request"),
        ([("Content-Length", "0x3")], 400, "bad_request"),
        ([("Content-Length", "")], 400, "bad_request"),
        ([("Content-Length", "9" * 5000)], 413, "body_too_large"),
        ([("Content-Encoding", "Identity")], 200, ""),
    ],
)
def test_guard_refuses_odd_encodings_and_lengths(
    headers: list[tuple[str, str]], status: int, reason: str
) -> None:
    app = EchoApp()
    named = {name.lower() for name, _ in headers}
    length = None if named & {"content-length", "transfer-encoding"} else 3
    chunks = [b"abc"] if length else []
    reply = run(ask(Guard(app), chunks, headers=headers, length=length))
    assert reply.status == status
    assert app.bodies == ([b"abc"] if status == 200 else [])
    if reason:
        assert reply.reason == reason


def test_guard_reads_the_rest_of_a_refused_body_so_the_client_sees_the_answer() -> None:
    headers = [("Content-Encoding", "gzip"), *bearer(TOKEN)]
    reply = run(ask(Guard(EchoApp(), tokens=TOKENS), [b"x" * 1000] * 50, length=50_000, headers=headers))
    assert reply.status == 415
    assert reply.bytes_read == 50_000


def test_guard_reads_nothing_of_a_body_without_a_token() -> None:
    guard = Guard(EchoApp(), tokens=TOKENS)
    reply = run(ask(guard, [b"half"], length=50_000, then="stall"))
    assert (reply.status, reply.bytes_read) == (401, 0), "nobody holds a slot of the service for it"
    assert reply.headers["connection"] == "close"


def test_guard_behind_the_front_leaves_the_rest_of_a_body_to_it() -> None:
    front = {"placeray.front": {"refused": {"unauthorized": 3}}}
    seen: list[tuple[str, int]] = []
    guard = Guard(EchoApp(), max_body_bytes=9, on_refused_ahead=lambda *refused: seen.append(refused))
    reply = run(ask(guard, [b"x" * 1000] * 50, length=50_000, extensions=front))
    assert (reply.status, reply.bytes_read) == (413, 0)
    assert seen == [("unauthorized", 3)], "what the front refused is counted where the metrics are"


# Many at once


def test_guard_beyond_max_receiving_gives_503_and_lets_requests_without_a_body_through() -> None:
    app, counted = EchoApp(), list[str]()
    guard = Guard(
        app,
        max_receiving=3,
        receive_timeout_s=0.2,
        retry_after_s=7,
        on_request=only_reasons(counted),
    )

    async def test() -> None:
        slow = [asyncio.create_task(ask(guard, [b"x"], length=9, then="stall")) for _ in range(3)]
        while guard.receiving < 3:
            await asyncio.sleep(0)
        refused = await ask(guard, [b"abc"], length=3)
        assert (refused.status, refused.headers["retry-after"]) == (503, "7")
        assert refused.reason == "overloaded"
        assert (await ask(guard, method="GET", path="/readyz")).status == 200
        assert (await ask(guard, length=0)).status == 200
        assert {reply.status for reply in await asyncio.gather(*slow)} == {408}
        assert (await ask(guard, [b"abc"], length=3)).status == 200, "room again"

    run(test())
    assert counted == ["overloaded", *["receive_timeout"] * 3]


def test_guard_beyond_max_receiving_bytes_gives_503_and_gives_the_bytes_back() -> None:
    app = EchoApp()
    guard = Guard(app, max_receiving_bytes=100, receive_timeout_s=0.2)

    async def test() -> None:
        slow = asyncio.create_task(ask(guard, [b"x" * 60], length=99, then="stall"))
        while guard.receiving < 1:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (await ask(guard, [b"x" * 40])).status == 200
        assert (await ask(guard, [b"x" * 40])).status == 200, "the bytes of the last one are free again"
        assert (await ask(guard, [b"x" * 41])).reason == "overloaded"
        assert (await slow).status == 408
        assert (await ask(guard, [b"x" * 100])).status == 200

    run(test())


# Tokens

PROTECTED = [
    ("/v1/query", None),
    ("/", None),
    ("/metrics", None),
    ("/healthz/", None),
    ("//healthz", None),
    ("/healthz//", None),
    ("/healthz/../v1/query", None),
    ("/healthz/../v1/query", "/healthz%2f..%2fv1%2fquery"),
    ("/healthz/../v1/query", "/healthz/%2e%2e/v1/query"),
    ("/healthz", "/%68ealthz"),
    ("/healthz/", "/healthz%2f"),
    ("/healthz/", "/healthz%2F"),
    ("//healthz", "/%2fhealthz"),
    ("/healthz;x", None),
    ("/healthz\x00", "/healthz%00"),
    ("/HEALTHZ", None),
    ("/healthzz", None),
    ("healthz", None),
    ("", ""),
    ("*", None),
]
CREDENTIALS: list[tuple[list[tuple[str, str]], str | None]] = [
    ([], None),
    (bearer("wrong-token-0123456789"), None),
    (bearer(""), None),
    ([("Authorization", TOKEN)], None),
    (bearer(TOKEN) + bearer(TOKEN), None),
    (bearer(TOKEN), "read"),
    (bearer(ADMIN_TOKEN), "admin"),
]


@pytest.mark.parametrize(("path", "raw_path"), PROTECTED)
def test_guard_lets_only_a_known_token_through(path: str, raw_path: str | None) -> None:
    app = EchoApp()
    guard = Guard(app, tokens=TOKENS)
    for credentials, role in CREDENTIALS:
        for method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "TRACE"):
            reply = run(ask(guard, method=method, path=path, raw_path=raw_path, headers=credentials))
            case = (method, credentials)
            if role is None:
                assert (reply.status, reply.reason) == (401, "unauthorized"), case
                assert reply.headers["www-authenticate"].startswith("Bearer realm="), case
                assert ("invalid_token" in reply.headers["www-authenticate"]) == bool(credentials), case
                assert app.scopes == [], case
            else:
                assert reply.status == 200, case
                assert app.scopes.pop()["state"]["role"] == role, case


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_guard_open_paths_need_no_token(path: str) -> None:
    guard = Guard(EchoApp(), tokens=TOKENS)
    for method in ("GET", "HEAD"):
        assert run(ask(guard, method=method, path=path)).status == 200
        assert run(ask(guard, method=method, path=path, headers=bearer("wrong"))).status == 200
        assert run(ask(guard, method=method, path="/at" + path, root_path="/at")).status == 200
    assert run(ask(guard, method="POST", path=path)).status == 401
    assert run(ask(guard, method="GET", path="/at" + path, root_path="/other")).status == 401
    assert run(ask(Guard(EchoApp(), tokens=TOKENS, open_paths=()), method="GET", path=path)).status == 401


@pytest.mark.parametrize("tokens", [None, {}])
def test_guard_without_tokens_lets_everyone_be_admin(tokens: dict[str, str] | None) -> None:
    reply = run(ask(Guard(EchoApp(), tokens=tokens)))
    assert json.loads(reply.body)["state"]["role"] == "admin"


def test_guard_never_shows_the_token_to_app_or_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app = EchoApp()
    for path in ("/v1/query", "/raise"):
        for token in (TOKEN, "wrong-token-0123456789"):
            run(ask(Guard(app, tokens=TOKENS), path=path, headers=bearer(token)))
    assert len(app.scopes) == 2
    assert "token-0123456789" not in repr(app.scopes) + caplog.text
    assert len(log_lines(caplog, "request")) == 4


# Request ids


@pytest.mark.parametrize("request_id", ["a", "7f3-A_b.c", "x" * 64])
def test_guard_keeps_a_well_formed_request_id(request_id: str) -> None:
    app = EchoApp()
    reply = run(ask(Guard(app), headers=[("X-Request-Id", request_id)]))
    assert reply.headers["x-request-id"] == request_id
    assert app.scopes[0]["state"] == {"request_id": request_id, "role": "admin", "from_lifespan": 1}


@pytest.mark.parametrize("request_id", [None, "", "x" * 65, "a b", "-a", "a\nb", 'a"', "é", "<a>", "../a"])
def test_guard_makes_a_request_id_where_there_is_no_good_one(request_id: str | None) -> None:
    app = EchoApp()
    headers = [] if request_id is None else [("X-Request-Id", request_id)]
    ids = {run(ask(Guard(app), headers=headers)).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(len(made) == 32 and made != request_id for made in ids)
    assert {scope["state"]["request_id"] for scope in app.scopes} == ids


def test_guard_puts_the_request_id_on_refusals_too() -> None:
    guard = Guard(EchoApp(), tokens=TOKENS, max_body_bytes=1)
    for headers in ([], bearer(TOKEN)):
        reply = run(ask(guard, [b"xx"], length=2, headers=[("X-Request-Id", "abc"), *headers]))
        assert reply.headers["x-request-id"] == "abc"
        assert reply.status in (401, 413)


def test_guard_where_the_server_echoes_request_ids_adds_only_its_own() -> None:
    guard = Guard(EchoApp(), server_echoes_request_id=True)
    assert "x-request-id" not in run(ask(guard, headers=[("X-Request-Id", "abc")])).headers
    assert len(run(ask(guard, headers=[("X-Request-Id", "a b")])).headers["x-request-id"]) == 32


# Failures of the service behind


@pytest.mark.parametrize("path", ["/raise", "/silent", "/500", "/500-then-raise"])
def test_guard_turns_every_failure_into_500_that_tells_nothing(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    counted: list[str] = []
    reply = run(
        ask(
            Guard(EchoApp(), on_request=only_reasons(counted)),
            path=path,
            headers=[("X-Request-Id", "id-7")],
        )
    )
    assert reply.status == 500
    assert reply.reason == "internal"
    assert reply.headers["x-request-id"] == "id-7"
    assert "id-7" in json.loads(reply.body)["error"]["message"]
    assert counted == ["internal"]
    failures = log_lines(caplog, "failure")
    assert len(failures) == ("raise" in path)
    for failure in failures:
        assert failure["request_id"] == "id-7"
        assert f"OverflowError: secret of {SECRET_PATH}" in failure["traceback"]
    requests = log_lines(caplog, "request")
    assert [(line["status"], line["reason"], line["path"]) for line in requests] == [(500, "internal", path)]


def test_guard_of_a_failure_amid_the_answer_leaves_it_cut(caplog: pytest.LogCaptureFixture) -> None:
    reply = run(ask(Guard(EchoApp()), path="/raise-late"))
    assert reply.status == 200
    assert reply.body == b"["
    assert not reply.complete
    assert len(log_lines(caplog, "failure")) == 1


def test_guard_drops_server_names_from_answers_of_the_app() -> None:
    reply = run(ask(Guard(EchoApp())))
    assert set(reply.headers) == {"content-type", "x-content-type-options", "x-request-id"}


def test_guard_of_a_client_that_left_raises_no_alarm(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    counted: list[str] = []

    async def test() -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": b""}

        async def send(message: Message) -> None:
            raise ConnectionResetError("gone")

        scope = {"type": "http", "method": "POST", "path": "/", "headers": [HOST]}
        await Guard(EchoApp(), on_request=only_reasons(counted))(scope, receive, send)

    run(test())
    assert counted == []
    assert [line["client_gone"] for line in log_lines(caplog, "failure")] == [True]
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_guard_takes_a_failing_receive_for_a_client_that_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app, sent, counted = EchoApp(), list[Message](), list[str]()

    async def receive() -> Message:
        raise OverflowError("the call to the proxy was cancelled")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [HOST, (b"content-length", b"9")]}
    run(Guard(app, on_request=only_reasons(counted))(scope, receive, send))
    assert (app.bodies, sent, counted) == ([], [], [])
    assert ["cancelled" in line["error"] for line in log_lines(caplog, "client_gone")] == [True]


def test_guard_passes_a_disconnect_during_the_work_on_to_the_app() -> None:
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append((await receive())["type"])
        heard.append((await receive())["type"])

    reply = run(ask(Guard(app), [b"x"], then="leave"))
    assert heard == ["http.request", "http.disconnect"]
    assert reply.sent == [], "nobody is there for a 500"


def test_guard_lets_a_cancellation_pass() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(100)

    async def test() -> None:
        task = asyncio.create_task(ask(Guard(app)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(test())


# Other kinds of connection


def test_guard_hands_lifespan_on_and_closes_websockets() -> None:
    called: list[str] = []
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        called.append(scope["type"])

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    guard = Guard(app, tokens=TOKENS)
    run(guard({"type": "lifespan"}, receive, send))
    run(guard({"type": "websocket", "path": "/healthz", "headers": []}, receive, send))
    with pytest.raises(ValueError, match="scope type 'other'"):
        run(guard({"type": "other"}, receive, send))
    assert called == ["lifespan"]
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize("limit", ["max_body_bytes", "receive_timeout_s", "max_receiving", "retry_after_s"])
def test_guard_with_a_limit_of_zero_is_refused(limit: str) -> None:
    with pytest.raises(ValueError, match="must all be above 0; raise those that are not"):
        Guard(EchoApp(), **{limit: 0})  # type: ignore[arg-type]
