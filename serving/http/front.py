"""Middleware in the proxies of Ray Serve, ahead of the slots that requests occupy in the service.

`placeray serve` installs it where it starts Ray. On a cluster set
`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serving.http.front:middlewares` where `ray start` runs.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

from starlette.middleware import Middleware

from serving.errors import Refusal, internal_error
from serving.http.exchange import (
    FRONT_EXTENSION,
    ASGIApp,
    Headers,
    Message,
    Receive,
    Scope,
    Send,
    discard,
    request_id_of,
)
from serving.http.front_response import FrontResponse
from serving.http.protocol import use_bounded_protocol
from serving.http.tokens import TokenTable
from serving.http.uploads import MAX_BODY_BYTES, has_body, too_many_uploads
from serving.logs import log_json

__all__ = ["Front", "FrontSettings", "middlewares"]

LOG = logging.getLogger(__name__)
VARIABLE = "PLACERAY_FRONT"
CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
# Headers by which Ray Serve lets a client set its own timeout.
RAY_HEADERS = (b"x-request-timeout-seconds", b"x-request-disconnect-disabled")
RAY_ROUTES = "/-/routes"  # names of all applications of the cluster
# So much of a refused body is read, and by so many requests at once, before their connections are closed.
DISCARD_BYTES = 128 << 20
DISCARD_S = 2.0
MAX_DISCARDING = 64


@dataclass(frozen=True)
class FrontSettings:
    """What the front knows of the service behind it.

    Attributes:
        digests: Role of each digest, as of `TokenTable.digests`; empty: the guard alone checks tokens.
        max_uploads: Uploads in progress at once; beyond it 503.
        log_file: File to append logs of refused requests to; empty: stderr.
    """

    digests: Mapping[str, str] = field(default_factory=dict)
    max_uploads: int = 1024
    log_file: str = ""

    def environment(self) -> dict[str, str]:
        """Return the environment variables that install the front in the proxies of a Ray to be started."""
        return {CALLBACK: f"{__name__}:{middlewares.__name__}", VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> FrontSettings:
        """Read what `environment` wrote; defaults where it is absent."""
        return cls(**json.loads(environment.get(VARIABLE) or "{}"))


def middlewares() -> list[Middleware]:
    """Set up a proxy process of Ray Serve, which calls this before its HTTP server starts."""
    settings = FrontSettings.from_environment(os.environ)
    use_bounded_protocol()
    log_json(replica="proxy", file=settings.log_file)
    return [Middleware(Front, settings=settings)]


class Front:
    """ASGI middleware ahead of Ray Serve.

    - An upload without a valid token is answered here, without a slot of the service, and so are uploads
      beyond `max_uploads`: health checks are answered while others flood the service.
    - An invalid `x-request-id` is removed, so that the response has one id, and so are headers by which Ray
      Serve lets a client set its own timeout.
    - What Ray Serve answers by itself has the JSON body of all errors.
    - The rest of a refused body is read within limits before the connection is closed.

    Args:
        app: Ray Serve's proxy, or the guard.
        settings: Of the service behind.
    """

    def __init__(self, app: ASGIApp, *, settings: FrontSettings) -> None:
        self.app = app
        self._max_uploads = settings.max_uploads
        self._tokens = TokenTable.from_digests(settings.digests) if settings.digests else None
        self._uploads = 0
        self._discarding = 0
        self._refused: Counter[str] = Counter()  # since a request last told the service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, see the ASGI specification."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(receive, expected=has_body(scope["headers"]))
        response = FrontResponse(send, lambda: not body.complete)
        refusal = self._refusal(scope, body)
        if refusal is not None:
            await self._refuse(scope, refusal, response)
        else:
            await self._pass(scope, body, response)
        await response.finish(lambda: self._discard(receive))

    def _refusal(self, scope: Scope, body: _Body) -> Refusal | None:
        if scope["path"].removeprefix(scope.get("root_path", "")) == RAY_ROUTES:
            return Refusal(404, "not_found", "This path does not exist; see /openapi.json.")
        if body.complete:
            return None
        try:
            if self._tokens is not None:
                self._tokens.require(scope["headers"])
        except Refusal as refusal:
            return refusal
        return too_many_uploads(1) if self._uploads >= self._max_uploads else None

    async def _refuse(self, scope: Scope, refusal: Refusal, response: FrontResponse) -> None:
        request_id = request_id_of(scope["headers"]) or uuid.uuid4().hex
        self._refused[refusal.reason] += 1
        started = time.perf_counter()
        await response.refuse(refusal, [request_id.encode()])
        line = {
            "event": "request",
            "request_id": request_id,
            "method": scope["method"],
            "path": scope["path"],
        }
        duration_ms = round(1e3 * (time.perf_counter() - started), 2)
        LOG.info({**line, "status": refusal.status, "reason": refusal.reason, "duration_ms": duration_ms})

    async def _pass(self, scope: Scope, body: _Body, response: FrontResponse) -> None:
        extensions = {**scope.get("extensions", {}), FRONT_EXTENSION: {"refused": dict(self._refused)}}
        self._refused.clear()
        inner = {**scope, "headers": _passed_headers(scope["headers"]), "extensions": extensions}
        upload = not body.complete

        def received() -> None:
            nonlocal upload
            self._uploads -= upload
            upload = False

        self._uploads += upload
        body.on_complete = received
        try:
            await self.app(inner, body.receive, response.send)
        finally:  # an exception goes on to the server, which logs it
            received()
            if not response.started and not body.disconnected:
                await self._refuse(scope, internal_error(), response)

    async def _discard(self, receive: Receive) -> None:
        if self._discarding >= MAX_DISCARDING:
            return
        self._discarding += 1
        try:
            await discard(receive, max_bytes=DISCARD_BYTES, timeout_s=DISCARD_S)
        finally:
            self._discarding -= 1


class _Body:
    """The body of one request on its way to the service.

    Ray Serve keeps what it receives until the service asks for it, so nothing is received beyond what any
    service accepts.
    """

    def __init__(self, receive: Receive, *, expected: bool) -> None:
        self._receive = receive
        self._bytes = 0
        self.complete = not expected
        self.disconnected = False
        self.on_complete: Callable[[], None] = lambda: None

    async def receive(self) -> Message:
        """The `receive` of Ray Serve, which cancels it when the service has answered."""
        if self._bytes > MAX_BODY_BYTES:
            await asyncio.Event().wait()
        message = await self._receive()
        self.disconnected |= message["type"] == "http.disconnect"
        self._bytes += len(message.get("body", b""))
        if not message.get("more_body", False) and not self.complete:
            self.complete = True
            self.on_complete()
        return message


def _passed_headers(headers: Headers) -> Headers:
    dropped = RAY_HEADERS if request_id_of(headers) else (*RAY_HEADERS, b"x-request-id")
    return [pair for pair in headers if pair[0] not in dropped]
