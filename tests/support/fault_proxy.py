"""A small HTTP proxy in front of a real server of object storage, which delays, fails and damages answers."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import unquote

Kind = Literal["503", "500", "403", "hang", "truncate", "lost answer", "flipped byte"]


@dataclass
class Fault:
    """What to do with the next requests of a kind.

    Attributes:
        kind: `503`, `500`, `403`: the request does not reach the server. `hang`: nor is it answered.
            `truncate`: half of the answer's body. `lost answer`: done by the server, then the connection
            ends. `flipped byte`: one bit of the answer's body differs.
        method: Of the requests.
        path: Part of their path.
        times: How many of them.
        every: Only each n-th of them.
    """

    kind: Kind
    method: str = ""
    path: str = ""
    times: int = 10**9
    every: int = 1
    seen: int = 0


@dataclass
class FaultProxy:
    """Settings of a running proxy, and what it saw."""

    url: str
    faults: list[Fault] = field(default_factory=list)
    delay_s: float = 0.0
    seen: list[tuple[str, str]] = field(default_factory=list)
    hang_s: float = 30.0
    dropped_headers: tuple[str, ...] = ()  # in lower case: as if the server did not know them
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, kind: Kind, **options: object) -> None:
        self.faults.append(Fault(kind, **options))  # type: ignore[arg-type]

    def clear(self) -> None:
        self.faults.clear()
        self.seen.clear()
        self.delay_s = 0.0

    def due(self, method: str, path: str) -> Kind | None:
        with self.lock:
            self.seen.append((method, path))
            for fault in self.faults:
                if fault.method in ("", method) and fault.path in path and fault.times > 0:
                    fault.seen += 1
                    if fault.seen % fault.every == 0:
                        fault.times -= 1
                        return fault.kind
        return None


@contextlib.contextmanager
def fault_proxy(server_url: str) -> Iterator[FaultProxy]:
    """Run a proxy in front of `server_url`. The Host header is kept, since signatures cover it."""
    target = server_url.removeprefix("http://")
    stopped = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.due(self.command, unquote(self.path))
            stopped.wait(proxy.delay_s)
            if fault in ("503", "500", "403"):
                text = f"<Error><Code>{'SlowDown' if fault == '503' else 'Fault'}</Code></Error>".encode()
                self._answer(int(fault), [("Content-Type", "application/xml")], text)
                return
            if fault == "hang":
                stopped.wait(proxy.hang_s)
                self.close_connection = True
                return
            status, headers, data = self._forward(body)
            if fault == "lost answer":
                self.close_connection = True
                return
            if fault == "flipped byte" and data:
                data = data[:-1] + bytes([data[-1] ^ 1])
            self._answer(status, headers, data, truncate=fault == "truncate")

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

        def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            upstream = http.client.HTTPConnection(target, timeout=60)
            try:
                upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in ("connection", "expect", *proxy.dropped_headers):
                        upstream.putheader(name, value)
                upstream.endheaders(body or None)
                answer = upstream.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            finally:
                upstream.close()

        def _answer(
            self, status: int, headers: list[tuple[str, str]], data: bytes, *, truncate: bool = False
        ) -> None:
            self.send_response_only(status)
            length = str(len(data))
            for name, value in headers:
                if name.lower() == "content-length" and self.command == "HEAD":
                    length = value
                elif name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            if truncate:
                data = data[: len(data) // 2]
                self.close_connection = True
            if self.command != "HEAD":
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *args: object) -> None:
            pass  # clients that give up

    server = Server(("127.0.0.1", 0), Handler)
    proxy = FaultProxy(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        stopped.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
