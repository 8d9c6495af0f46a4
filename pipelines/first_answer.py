"""Waits until a service answers over HTTP.

Ray Serve reports an application as running when its replicas are. Its proxy learns the routes a moment later,
and until then it answers 404 itself.
"""

from __future__ import annotations

import http.client
import time

__all__ = ["wait_for_answer"]

WAIT_S, PAUSE_S, TIMEOUT_S = 60.0, 0.05, 10.0
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def wait_for_answer(host: str, port: int, *, wait_s: float = WAIT_S) -> bool:
    """Return whether the service itself, not the proxy before it, answers a probe within some time.

    Args:
        host: Address that the service listens on; of all addresses, loopback is asked.
        port: Its port.
        wait_s: How long to try.
    """
    ends = time.monotonic() + wait_s
    while not _answers(_LOOPBACK.get(host, host), port):
        if time.monotonic() > ends:
            return False
        time.sleep(PAUSE_S)
    return True


def _answers(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        reply = connection.getresponse()
        # The service answers in JSON, errors too; the proxy in plain text.
        return reply.getheader("content-type", "").startswith("application/json")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
