"""A folder served as a bucket is, by ranges: with a latency, or in steps that are the round trips."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from storage.objects.bucket import READS_AT_ONCE

__all__ = ["SlowBucket", "slow_bucket"]

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_QUIET_S = 0.5


class SlowBucket:
    """A running bucket, and what was asked of it.

    Attributes:
        url: Its endpoint.
        latency_s: From each request to its answer. None: requests are held until as many wait as a reader
            asks for at once, or none came for half a second; then all of them are answered, which is a step.
        requests: Number of requests.
        steps: Number of steps: how often a reader had to wait for the bucket, whatever else the machine does.
    """

    def __init__(self, url: str, latency_s: float | None) -> None:
        self.url, self.latency_s = url, latency_s
        self._changed = threading.Condition()
        self._waiting = 0
        self._last = 0.0
        self.requests = self.steps = 0

    def forget(self) -> None:
        """Count from 0."""
        self.requests = self.steps = 0

    def hold(self) -> None:
        """Keep one request waiting for as long as it should."""
        with self._changed:
            self.requests += 1
            if self.latency_s is None:
                self._hold_for_others()
        if self.latency_s is not None:
            time.sleep(self.latency_s)

    def _hold_for_others(self) -> None:
        step, self._last = self.steps, time.monotonic()
        self._waiting += 1
        if self._waiting == READS_AT_ONCE:
            self._answer()
        while step == self.steps:
            self._changed.wait(_QUIET_S)
            if step == self.steps and time.monotonic() - self._last >= _QUIET_S:
                self._answer()

    def _answer(self) -> None:
        self._waiting = 0
        self.steps += 1
        self._changed.notify_all()


@contextlib.contextmanager
def slow_bucket(folder: Path, latency_s: float | None) -> Iterator[SlowBucket]:
    """Serve the files of a folder as the objects of `s3://bucket`, for reading; see `SlowBucket`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            bucket.hold()
            path = folder / unquote(urlsplit(self.path).path).removeprefix("/bucket/")
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                start, stop = _part(self.headers.get("Range", ""), size)
                data = os.pread(file.fileno(), stop - start, start)
            self.send_response_only(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", '"0"')
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    bucket = SlowBucket(f"http://127.0.0.1:{server.server_port}", latency_s)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield bucket
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _part(wanted: str, size: int) -> tuple[int, int]:
    """Return the first byte of a Range header's part, and the one behind its last."""
    match = _RANGE.fullmatch(wanted)
    if match is None:
        return 0, size
    if not match[1]:
        return max(0, size - int(match[2])), size
    return int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
