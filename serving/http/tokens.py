"""Bearer tokens: reading, comparing and requiring them."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

from serving.errors import Refusal
from serving.http.exchange import Headers, header_values
from serving.http.headers import is_loopback
from storage.errors import PlacerayError

__all__ = [
    "InsecureBinding",
    "InvalidTokens",
    "TokenTable",
    "require_token_beyond_loopback",
    "tokens_from_environment",
]

VARIABLE = "PLACERAY_TOKENS"
ROLES = ("read", "metrics", "admin")
MIN_TOKEN_CHARACTERS = 16
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # b64token, RFC 6750 section 2.1: holds neither colon nor comma


class InvalidTokens(PlacerayError, ValueError):
    """The tokens of the service are invalid; the message never shows one."""

    reason = "invalid_tokens"


class InsecureBinding(PlacerayError, ValueError):
    """The service would listen beyond this machine without authentication."""

    reason = "insecure_binding"


class TokenTable:
    """Looks up the role of a token in constant time.

    Args:
        tokens: Role of each token. Only digests are stored.
    """

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._roles = [(_digest(token.encode()), role) for token, role in tokens.items()]

    @property
    def digests(self) -> dict[str, str]:
        """Role of each token's SHA-256 in hexadecimal."""
        return {digest.hex(): role for digest, role in self._roles}

    @classmethod
    def from_digests(cls, digests: Mapping[str, str]) -> TokenTable:
        """Create a table from `digests`.

        Raises:
            ValueError: a key is not hexadecimal.
        """
        table = cls({})
        table._roles = [(bytes.fromhex(digest), role) for digest, role in digests.items()]
        return table

    def require(self, headers: Headers) -> str:
        """Return the role of a request.

        Raises:
            Refusal: reason `unauthorized`; it has no valid token, or several.
        """
        credentials = header_values(headers, b"authorization")
        role = self.role(credentials[0]) if len(credentials) == 1 else None
        if role is None:
            challenge = 'Bearer realm="placeray"' + (', error="invalid_token"' if credentials else "")
            message = "This service requires a token; send the header 'Authorization: Bearer <token>'."
            raise Refusal(401, "unauthorized", message, headers={"www-authenticate": challenge})
        return role

    def role(self, authorization: bytes) -> str | None:
        """Return the role of an Authorization header; None for an invalid one."""
        scheme, _, token = authorization.partition(b" ")
        candidate = _digest(token.strip())
        matched = None
        # Digests have one length and all of them are compared, so the time reveals nothing about any token.
        for digest, role in self._roles:
            if hmac.compare_digest(digest, candidate):
                matched = role
        return matched if scheme.lower() == b"bearer" else None


def tokens_from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Read `PLACERAY_TOKENS`: comma separated, each `role:token` or a plain token with the role `read`.

    Args:
        environment: Usually `os.environ`.

    Returns:
        Role of each token; empty if the variable is unset or empty.

    Raises:
        InvalidTokens: an entry is too short, has an unknown role or invalid characters, or is a duplicate.
    """
    value = environment.get(VARIABLE, "").strip()
    tokens: dict[str, str] = {}
    for position, entry in enumerate(value.split(",") if value else (), start=1):
        role, colon, token = entry.strip().rpartition(":")
        place = f"{VARIABLE}, entry {position}"
        if colon and role not in ROLES:
            raise InvalidTokens(
                f"{place}: the part before the colon is not a role; use one of {', '.join(ROLES)}."
            )
        if len(token) < MIN_TOKEN_CHARACTERS or not TOKEN.fullmatch(token):
            raise InvalidTokens(
                f"{place}: a token has at least {MIN_TOKEN_CHARACTERS} of the characters A-Z a-z 0-9 . _ ~ + "
                "/ and -; generate one with `openssl rand -hex 32`."
            )
        if token in tokens:
            raise InvalidTokens(f"{place}: duplicate token; give each role its own token.")
        tokens[token] = role or ROLES[0]
    return tokens


def require_token_beyond_loopback(host: str, tokens: Mapping[str, str] | None) -> None:
    """Refuse to listen beyond this machine without authentication.

    Args:
        host: The address to bind to.
        tokens: As of `tokens_from_environment`.

    Raises:
        InsecureBinding: `host` is not a loopback address and there is no token.
    """
    if not tokens and not is_loopback(host):
        raise InsecureBinding(
            f"Listening on {host or 'all addresses'!r} would let other machines in without a token; set "
            f"{VARIABLE} (for example to the output of `openssl rand -hex 32`) or use --host 127.0.0.1."
        )


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
