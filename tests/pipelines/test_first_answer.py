"""A service is announced once it answers itself, not when its port is open."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from pipelines.first_answer import wait_for_answer


@contextmanager
def server(*replies: tuple[int, str]) -> Iterator[tuple[HTTPServer, list[str]]]:
    """Serve one reply after the other, the last one again and again; collect the paths."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind = replies[min(len(asked), len(replies) - 1)]
            asked.append(self.path)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield running, asked
        finally:
            running.shutdown()
            thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("status", [200, 503, 421])
def test_waits_until_the_service_answers_itself(host: str, status: int) -> None:
    with server((404, "text/plain"), (503, "text/plain"), (status, "application/json")) as (running, asked):
        assert wait_for_answer(host, running.server_port)
    assert asked == ["/readyz"] * 3


def test_gives_up_after_some_time() -> None:
    with server((404, "text/plain")) as (running, asked):
        assert not wait_for_answer("127.0.0.1", running.server_port, wait_s=0.1)
    assert asked


def test_a_closed_port_is_no_answer() -> None:
    with server((200, "application/json")) as (running, _):
        port = running.server_port
    assert not wait_for_answer("127.0.0.1", port, wait_s=0)
