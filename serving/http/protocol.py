"""HTTP/1.1 protocol of the proxy: uvicorn's, with limits on what precedes a request's body.

Ray Serve runs uvicorn with the parser of `httptools`, which has no limit on headers, and offers no setting
for it. `use_bounded_protocol` makes this class the one that uvicorn chooses by itself.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import Any

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.errors import Refusal
from serving.http.exchange import header_values
from serving.http.headers import (
    BYTES_PER_HEADER,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    too_large,
    trailers,
    two_hosts,
)

__all__ = ["BoundedProtocol", "use_bounded_protocol"]

HEAD_TIMEOUT_S, READ_FIRST_S = 10.0, 0.1
# After an error this much is still read and discarded, so that closing does not reset the connection before
# the client has read the response.
LINGER_BYTES = 1 << 20
LINGER_S = 1.0


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    - Request line and headers are bounded in bytes, number (431) and time (408).
    - Fields after a chunked body (trailers) are refused; uvicorn would add them to the headers.
    - A target that names a host (RFC 9112, section 3.2.2) must name the one in Host.
    - A request to change the protocol is answered as any other; uvicorn would open a WebSocket for it.
    - Errors of the parser have the JSON body of all errors, and no response has a `server` header.
    """

    def __init__(self, config: Any, server_state: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, server_state, *args, **kwargs)
        config.encoded_headers = _without_server(config.encoded_headers)
        server_state.default_headers = _without_server(server_state.default_headers)
        self._in_head = True
        self._received_bytes = 0  # since the head began; counts what the parser still holds
        self._head_bytes = 0
        self._refusal: Refusal | None = None
        self._refused = False
        self._discarded = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the deadline of the first request."""
        super().connection_made(transport)
        self._start_timer(HEAD_TIMEOUT_S, self._head_timed_out)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, or discard it after an error."""
        if self._refused:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.transport.close()
            return
        if self._in_head:
            self._received_bytes += len(data)
            if self._timer is None:  # a further request on this connection
                self._start_timer(HEAD_TIMEOUT_S, self._head_timed_out)
        super().data_received(data)
        if self._in_head and self._received_bytes > MAX_HEADER_BYTES and not self._refused:
            self._refuse(too_large())

    def on_url(self, url: bytes) -> None:
        """Count the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        if not self._in_head:
            raise self._with(trailers())
        self._count(len(name) + len(value) + BYTES_PER_HEADER)
        if len(self.headers) >= MAX_HEADERS:
            raise self._with(too_large())
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin the body."""
        self._in_head = False
        self._stop_timer()
        named = _host_in(self.url)
        if named is not None and header_values(self.headers, b"host") != [named]:
            raise self._with(two_hosts())
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Expect the next request."""
        self._in_head = True
        self._received_bytes = self._head_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser, or this class, does not accept."""
        message = "This is not a valid HTTP/1.1 request; use an HTTP client."
        self._refuse(self._refusal or Refusal(400, "bad_request", message))

    def _should_upgrade_to_ws(self) -> bool:
        return False

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: the request is answered as any other."""

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEADER_BYTES:
            raise self._with(too_large())

    def _with(self, refusal: Refusal) -> Refusal:
        """Keep an error for `send_400_response`: raised in a callback it reaches there as the parser's."""
        self._refusal = refusal
        return refusal

    def _head_timed_out(self) -> None:
        # A loop that was held up runs timers before it reads what has arrived meanwhile: that comes first.
        self._start_timer(READ_FIRST_S, self._end_head)

    def _end_head(self) -> None:
        self._timer = None
        if self._received_bytes:
            self._refuse(Refusal(408, "receive_timeout", "The headers took too long; send them at once."))
        else:
            self.transport.close()

    def _refuse(self, refusal: Refusal) -> None:
        self._refused = True
        self._stop_timer()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self._in_head or cycle.response_started:  # no place for another response
                self.transport.close()
                return
            cycle.disconnected = True  # what the application sends is dropped from here on
            cycle.waiting_for_100_continue = False
            cycle.message_event.set()
        self.transport.write(_response(refusal, self.server_state.default_headers))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._start_timer(LINGER_S, self.transport.close)

    def _start_timer(self, seconds: float, action: Any) -> None:
        self._timer = self.loop.call_later(seconds, action)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def use_bounded_protocol() -> None:
    """Let every uvicorn server of this process that chooses its protocol itself use `BoundedProtocol`."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{BoundedProtocol.__name__}"


def _host_in(target: bytes) -> bytes | None:
    """Return host and port of a request target in absolute form; None where it is a path."""
    _, scheme_end, rest = target.partition(b"://")
    return re.split(rb"[/?#]", rest)[0] if scheme_end and not target.startswith(b"/") else None


def _response(refusal: Refusal, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    body = refusal.body
    headers = {**refusal.headers, "content-length": str(len(body)), "connection": "close"}
    headers["x-request-id"] = uuid.uuid4().hex
    lines = [b"%s: %s\r\n" % pair for pair in default_headers]
    lines += [f"{name}: {value}\r\n".encode("latin-1") for name, value in headers.items()]
    return b"".join([STATUS_LINE[refusal.status], *lines, b"\r\n", body])


def _without_server(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [pair for pair in headers if pair[0] != b"server"]
