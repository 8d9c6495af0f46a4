from __future__ import annotations

import pytest

from serving.http.tokens import (
    InsecureBinding,
    InvalidTokens,
    TokenTable,
    require_token_beyond_loopback,
    tokens_from_environment,
)

TOKEN = "abcdefgh01234567"
OTHER = "ABCDEFGH.01234567-~+/=="


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, {}),
        ("", {}),
        ("  ", {}),
        (TOKEN, {TOKEN: "read"}),
        (f"admin:{TOKEN}", {TOKEN: "admin"}),
        (f" admin:{TOKEN} , {OTHER} ", {TOKEN: "admin", OTHER: "read"}),
    ],
)
def test_tokens_from_environment_reads_roles(value: str | None, expected: dict[str, str]) -> None:
    assert tokens_from_environment({} if value is None else {"PLACERAY_TOKENS": value}) == expected


@pytest.mark.parametrize(
    ("value", "entry"),
    [
        (TOKEN[:-1], 1),
        (f"{TOKEN},short", 2),
        (f"{TOKEN},", 2),
        (",", 1),
        ("admin:", 1),
        (f":{TOKEN}", None),
        (f"amdin:{TOKEN}", 1),
        (f"Admin:{TOKEN}", 1),
        (f"admin:x:{TOKEN}", 1),
        (f"{TOKEN} {TOKEN}", 1),
        (f"{TOKEN}é", 1),
        (f"{TOKEN}\n{TOKEN}", 1),
        (f"read:{TOKEN},admin:{TOKEN}", 2),
    ],
)
def test_tokens_from_environment_refuses_without_showing_a_token(value: str, entry: int | None) -> None:
    with pytest.raises(InvalidTokens, match=f"PLACERAY_TOKENS, entry {entry or 1}: .*[.]$") as caught:
        tokens_from_environment({"PLACERAY_TOKENS": value})
    assert TOKEN[:-1] not in str(caught.value)
    assert "short" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost"])
def test_require_token_on_loopback_lets_all_through(host: str) -> None:
    require_token_beyond_loopback(host, {})
    require_token_beyond_loopback(host, None)
    with pytest.raises(InsecureBinding):  # a name that only begins like it
        require_token_beyond_loopback(f"{host}.example", {})


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "10.0.0.7", "192.168.1.1", "placeray.example", "fe80::1"]
)
def test_require_token_beyond_loopback_wants_one(host: str) -> None:
    for tokens in ({}, None):
        with pytest.raises(InsecureBinding, match=r"set PLACERAY_TOKENS .* or use --host 127\.0\.0\.1\.$"):
            require_token_beyond_loopback(host, tokens)
    require_token_beyond_loopback(host, {TOKEN: "read"})


@pytest.mark.parametrize(
    ("header", "role"),
    [
        (f"Bearer {TOKEN}", "read"),
        (f"bearer {TOKEN}", "read"),
        (f"BEARER  {TOKEN} ", "read"),
        (f"Bearer {OTHER}", "admin"),
        (f"Bearer {TOKEN[:-1]}", None),
        (f"Bearer {TOKEN}x", None),
        (f"Bearer {TOKEN.upper()}", None),
        (f"Basic {TOKEN}", None),
        (f"Bearer{TOKEN}", None),
        (f"Bearer {TOKEN},{OTHER}", None),
        (TOKEN, None),
        ("Bearer ", None),
        ("Bearer", None),
        ("", None),
        ("Bearer é", None),
    ],
)
def test_token_table_finds_the_role(header: str, role: str | None) -> None:
    assert TokenTable({TOKEN: "read", OTHER: "admin"}).role(header.encode()) == role


def test_token_table_keeps_no_token() -> None:
    table = TokenTable({TOKEN: "read"})
    assert TOKEN not in repr(vars(table))
