"""ASGI middleware in front of the service: tokens, size limits, timeouts, request ids, uniform errors.

Pure ASGI, standard library only. The guard receives the whole body before it calls the application, so that a
slow or broken client never occupies the service.
"""

from __future__ import annotations

import logging
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from serving.errors import Refusal, internal_error
from serving.http.exchange import (
    FRONT_EXTENSION,
    ASGIApp,
    Headers,
    Receive,
    Reply,
    Scope,
    Send,
    discard,
    receive_or_disconnect,
    replay,
    request_id_of,
    route_path,
)
from serving.http.headers import Hosts, check_headers
from serving.http.tokens import TokenTable
from serving.http.uploads import ClientGone, Uploads, has_body

__all__ = ["MAX_UPLOADS", "Guard"]

MAX_UPLOADS = 128
LOG = logging.getLogger(__name__)
# After an error this much of the body is still read and discarded, so that closing the connection does not
# reset it before the client has read the response.
LINGER_BYTES = 512 << 10
LINGER_S = 1.0


class Guard:
    """ASGI middleware that passes only complete, authorised requests within the limits.

    The application gets `request_id` and `role` in `scope["state"]` and never the token. Every response has
    an `x-request-id` and `x-content-type-options: nosniff`. A 500 of the application, with or without an
    exception, is replaced by the error body of reason `internal`; its other responses pass unchanged.

    Args:
        app: The application.
        max_body_bytes: Larger bodies get 413.
        receive_timeout_s: Upload timeout; a body that takes longer gets 408.
        max_receiving: Concurrent uploads; beyond it 503 with Retry-After. Requests without a body do
            not count.
        max_receiving_bytes: Bytes held by all bodies being received; beyond it 503 with Retry-After.
        retry_after_s: Value of Retry-After.
        tokens: Role of each bearer token; none: no authentication, and every role is `admin`.
        open_paths: Paths that need no token for GET and HEAD without a body, compared exactly.
        allowed_hosts: Names in Host that are accepted without tokens, beside those of loopback.
        server_echoes_request_id: Whether the server adds the client's `x-request-id` to the response, as Ray
            Serve does; the guard then only adds ids that it generated.
        on_request: Called after each request with its path, status (None: the client disconnected first),
            reason of the error (None: no error, or without a reason) and seconds; must not raise.
        on_refused_ahead: Called with a reason and how often the front in the proxy refused a request for it
            since the last call; must not raise.

    Raises:
        ValueError: a limit is not positive.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int = 16 << 20,
        receive_timeout_s: float = 5.0,
        max_receiving: int = MAX_UPLOADS,
        max_receiving_bytes: int = 256 << 20,
        retry_after_s: int = 1,
        tokens: Mapping[str, str] | TokenTable | None = None,
        open_paths: Iterable[str] = ("/healthz", "/readyz"),
        allowed_hosts: Iterable[str] = (),
        server_echoes_request_id: bool = False,
        on_request: Callable[[str, int | None, str | None, float], None] | None = None,
        on_refused_ahead: Callable[[str, int], None] | None = None,
    ) -> None:
        limits = (max_body_bytes, receive_timeout_s, max_receiving, max_receiving_bytes, retry_after_s)
        if min(limits) <= 0:
            raise ValueError(f"The guard's limits {limits} must all be above 0; raise those that are not.")
        self.app = app
        self._max_body_bytes = max_body_bytes
        self._uploads = Uploads(
            max_body_bytes=max_body_bytes,
            timeout_s=receive_timeout_s,
            max_concurrent=max_receiving,
            max_total_bytes=max_receiving_bytes,
            retry_after_s=retry_after_s,
        )
        if tokens is not None and not isinstance(tokens, TokenTable):
            tokens = TokenTable(tokens) if tokens else None
        self._tokens = tokens
        self._open_paths = frozenset(open_paths)
        self._hosts = Hosts(allowed_hosts)
        self._server_echoes_request_id = server_echoes_request_id
        self._on_request = on_request
        self._on_refused_ahead = on_refused_ahead

    @property
    def receiving(self) -> int:
        """Number of bodies being received now."""
        return self._uploads.active

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, see the ASGI specification."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":  # the service has none
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._exchange(scope, receive, send)
        else:
            raise ValueError(f"ASGI scope type {scope['type']!r} is not supported; use an HTTP server.")

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        client_id = request_id_of(scope["headers"])
        reply = Reply(
            send,
            client_id or uuid.uuid4().hex,
            id_in_header=not (client_id and self._server_echoes_request_id),
        )
        # The application may set `reason` and `log` here.
        state: dict[str, Any] = {**scope.get("state", {}), "request_id": reply.request_id}
        log_disconnect = partial(_log_disconnect, reply.request_id)
        if self._on_refused_ahead is not None:
            for reason, count in _front_of(scope).get("refused", {}).items():
                self._on_refused_ahead(reason, count)
        try:
            await self._pass({**scope, "state": state}, receive_or_disconnect(receive, log_disconnect), reply)
            if reply.owed:
                await reply.refuse(internal_error(reply.request_id))
        except Exception:
            await self._fail(reply, traceback.format_exc())
        finally:
            seconds = time.perf_counter() - started
            reason = reply.reason or state.get("reason")
            if self._on_request is not None:
                self._on_request(scope["path"], reply.status, reason, seconds)
            _log(
                logging.INFO,
                event="request",
                request_id=reply.request_id,
                method=scope["method"],
                path=scope["path"],
                status=reply.status,
                reason=reason,
                duration_ms=round(1000 * seconds, 2),
                **state.get("log", {}),
            )

    async def _pass(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        headers: Headers = list(scope["headers"])
        role = None
        try:
            check_headers(headers)
            self._hosts.check(headers, restricted=self._tokens is None)
            role = self._role(scope, headers)
            body = await self._uploads.receive(receive, headers)
        except ClientGone:
            reply.gone = True
            return
        except Refusal as refusal:
            await reply.refuse(refusal, self._linger(scope, receive, refusal, allowed=role is not None))
            return
        if self._tokens is not None:
            headers = [(name, value) for name, value in headers if name.lower() != b"authorization"]
        scope["state"]["role"] = role
        inner_receive = replay(body, receive, reply)
        del body  # the application decides how long it is kept
        await self.app({**scope, "headers": headers}, inner_receive, reply.send)

    def _linger(
        self, scope: Scope, receive: Receive, refusal: Refusal, *, allowed: bool
    ) -> Callable[[], Awaitable[None]] | None:
        """Return how to read the rest of a refused body; None where there is none."""
        if not has_body(scope["headers"]):
            return None
        # Without a token nobody occupies a slot of the service, and the front reads the rest by itself.
        if not allowed or refusal.status == 408 or _front_of(scope):
            return _no_linger
        # Little of a body that is too large is read, all of any other.
        max_bytes = LINGER_BYTES if refusal.status == 413 else self._max_body_bytes
        return partial(discard, receive, max_bytes=max_bytes, timeout_s=LINGER_S)

    def _role(self, scope: Scope, headers: Headers) -> str:
        if self._tokens is None:
            return "admin"
        # Compared exactly and never normalised: `//healthz`, `/healthz/` or `/healthz%2f..` are other paths,
        # which need a token. A body would occupy a slot until it is received.
        if (
            scope["method"] in ("GET", "HEAD")
            and route_path(scope) in self._open_paths
            and not has_body(headers)
        ):
            return "open"
        return self._tokens.require(headers)

    async def _fail(self, reply: Reply, trace: str) -> None:
        # After a disconnect, a failure is most likely its consequence: logged, but not as an error.
        level = logging.INFO if reply.gone else logging.ERROR
        _log(level, event="failure", request_id=reply.request_id, client_gone=reply.gone, traceback=trace)
        # After half a response no error can be sent: returning makes the server close the connection.
        if reply.owed:
            with suppress(OSError):  # the client has just disconnected
                await reply.refuse(internal_error(reply.request_id))


async def _no_linger() -> None:
    """Close at once."""


def _front_of(scope: Scope) -> dict[str, Any]:
    """Return what the front in Ray Serve's proxy says; empty without one."""
    said: dict[str, Any] = scope.get("extensions", {}).get(FRONT_EXTENSION, {})
    return said


def _log_disconnect(request_id: str, error: Exception) -> None:
    _log(logging.INFO, event="client_gone", request_id=request_id, error=repr(error))


def _log(level: int, **fields: object) -> None:
    LOG.log(level, fields)
