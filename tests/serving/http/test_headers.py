"""Sizes and numbers of headers, Host and trailers, as the guard checks them."""

from __future__ import annotations

import asyncio

import pytest

from serving.http.guard import Guard
from serving.http.headers import MAX_HEADER_BYTES, MAX_HEADERS
from tests.support.asgi_client import TOKEN, TOKENS, EchoApp, Reply, ask, bearer


def get(guard: Guard, *headers: tuple[str, str]) -> Reply:
    return asyncio.run(ask(guard, method="GET", path="/v1/info", headers=headers))


@pytest.mark.parametrize("tokens", [None, TOKENS])
def test_headers_beyond_a_size_or_number_are_refused_whoever_sends_them(
    tokens: dict[str, str] | None,
) -> None:
    app = EchoApp()
    guard = Guard(app, tokens=tokens)
    credentials = bearer(TOKEN)
    for headers in (
        [("X-Large", "x" * MAX_HEADER_BYTES)],
        [(f"X-{number}", "x" * 1000) for number in range(66)],
        [(f"X-{number}", "") for number in range(MAX_HEADERS)],
    ):
        for sent in (headers, [*headers, *credentials]):
            reply = get(guard, *sent)
            assert (reply.status, reply.reason) == (431, "headers_too_large")
    assert app.scopes == []
    assert get(guard, *credentials, ("X-Fair", "x" * (MAX_HEADER_BYTES - 1000))).status == 200
    most = [*credentials, *[(f"X-{number}", "") for number in range(MAX_HEADERS - 2)]]
    assert get(guard, *most).status == 200
    assert get(guard, *most, ("x-request-id", "of-ray-serve")).status == 200


def test_an_announced_trailer_is_refused() -> None:
    app = EchoApp()
    reply = asyncio.run(ask(Guard(app), [b"x"], headers=[("Trailer", "Authorization")]))
    assert (reply.status, reply.reason) == (400, "bad_request")
    assert app.scopes == []


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1", "127.0.0.1:8000", "127.9.8.7", "[::1]"),
        *("[::1]:8000", "[::ffff:127.0.0.1]", "places.example.org", "Places.Example.ORG:443"),
    ],
)
def test_a_service_without_tokens_answers_to_loopback_and_allowed_names(host: str) -> None:
    assert get(Guard(EchoApp(), allowed_hosts=["places.example.org"]), ("Host", host)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.7",
        ),
        *("0.0.0.0", "[::]", "[fe80::1]", "localhosts", "xlocalhost", "127.0.0.1x", "2130706433", "0x7f.1"),
        *("localhost..", ".localhost", "[::ffff:10.0.0.7]"),
    ],
)
def test_a_service_without_tokens_is_no_host_of_another_name(host: str) -> None:
    app = EchoApp()
    reply = get(Guard(app), ("Host", host))
    assert (reply.status, reply.reason) == (421, "bad_host")
    assert get(Guard(app, tokens=TOKENS), ("Host", host), *bearer(TOKEN)).status == 200, "the token decides"
    assert len(app.scopes) == 1


@pytest.mark.parametrize("tokens", [None, TOKENS])
@pytest.mark.parametrize(
    "hosts",
    [
        ["localhost", "localhost"],
        ["localhost", "evil.example"],
        *([bad] for bad in ("", " ", "a b", "localhost:", "localhost:x", "a/b", "a@localhost", "[::1", "é")),
        ["localhost:123456"],
        ["localhost, evil.example"],
    ],
    ids=str,
)
def test_host_is_one_name_or_address(tokens: dict[str, str] | None, hosts: list[str]) -> None:
    app = EchoApp()
    reply = get(Guard(app, tokens=tokens), *(("Host", host) for host in hosts), *bearer(TOKEN))
    assert (reply.status, reply.reason) == (400, "bad_host")
    assert app.scopes == []


def test_host_must_be_there() -> None:
    app = EchoApp()
    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "headers": []}
    sent: list[int] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b""}

    async def send(message: dict[str, object]) -> None:
        sent.append(int(message.get("status", 0)))  # type: ignore[call-overload]

    asyncio.run(Guard(app)(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0] == 400
    assert app.scopes == []
