"""A client of the service: sends photos, waits politely, and names what went wrong."""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import requests

__all__ = ["BadAnswer", "PhotoRefused", "PlaceClient", "ServiceRefused", "ServiceUnavailable"]

LOG = logging.getLogger(__name__)
MAX_ANSWER_BYTES = 16 << 20
RETRIED = (429, 502, 503, 504)
FIRST_PAUSE_S = 0.25
MAX_PAUSE_S = 8.0


class ServiceUnavailable(Exception):
    """The service did not answer within the time given."""


class ServiceRefused(Exception):
    """The service wants another token, or the URL is not one that can be asked."""


class BadAnswer(Exception):
    """What answered is no placeray service."""


class PhotoRefused(Exception):
    """The service cannot use this photo or these parameters.

    Attributes:
        reason: Machine-readable, as the service gave it.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])


class PlaceClient:
    """Asks one service. A query changes nothing, so it is sent again when nobody could take it.

    Args:
        url: Of the service, such as `http://127.0.0.1:8000`.
        token: Bearer token; sent to this URL's host only, redirects are not followed.
        timeout_s: Longest time for one answer.
        patience_s: Longest time for one photo with all its retries.
        sleep: Waits between retries.
        clock: Seconds.

    Raises:
        ServiceRefused: the URL cannot be asked, or the token would travel unencrypted beyond this machine.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_s: float = 60.0,
        patience_s: float = 120.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ServiceRefused(f"{url!r} is no service's URL; give one such as http://127.0.0.1:8000")
        if token and parts.scheme == "http" and not _is_loopback(parts.hostname):
            LOG.warning("the token travels unencrypted to %s; use https", parts.hostname)
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._sleep = sleep
        self._clock = clock
        self._session = requests.Session()
        self._session.auth = _Bearer(token)  # set in any case, so that no ~/.netrc replaces it

    def query(
        self, image: bytes, *, top_k: int = 5, candidates: int = 100, rerank: bool = True
    ) -> dict[str, Any]:
        """Rank the places where a photo may have been taken.

        Args:
            image: An encoded JPEG, PNG or WebP.
            top_k: Places wanted.
            candidates: Hits that are re-ranked.
            rerank: False keeps the order of the global descriptors.

        Returns:
            The service's answer, see `POST /v1/query`.

        Raises:
            PhotoRefused: the photo or a parameter cannot be used.
            ServiceUnavailable, ServiceRefused, BadAnswer: see each.
        """
        parameters = {"top_k": top_k, "candidates": candidates, "rerank": str(rerank).lower()}
        answer = self._ask("POST", "/v1/query", parameters, image)
        if not isinstance(answer.get("matches"), list) or not isinstance(answer.get("timings_ms"), dict):
            raise BadAnswer(f"{self._url} answered without matches; is this placeray's URL?")
        return answer

    def info(self) -> dict[str, Any]:
        """Return what the service says of itself, see `GET /v1/info`; errors as of `query`."""
        return self._ask("GET", "/v1/info", {}, None)

    def _ask(self, method: str, path: str, parameters: dict[str, Any], body: bytes | None) -> dict[str, Any]:
        ends = self._clock() + self._patience_s
        attempt = 0
        while True:
            wanted_s = None
            try:
                status, headers, content = self._once(method, path, parameters, body, ends)
                if status not in RETRIED:
                    return self._read(status, content)
                trouble = f"status {status}: {_said(content)[1]}"
                wanted_s = _seconds(headers.get("retry-after"))
            except requests.Timeout:
                trouble = "it does not answer in time"
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                trouble = "no connection, or one cut short"
            except requests.RequestException as error:
                raise BadAnswer(f"{self._url} cannot be asked ({type(error).__name__}); check it") from error
            pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2**attempt) if wanted_s is None else wanted_s
            if self._clock() + pause_s > ends:
                raise ServiceUnavailable(
                    f"{self._url} could not be asked ({trouble}); is it running, and will it be less busy "
                    "later?"
                )
            self._sleep(pause_s)
            attempt += 1

    def _once(
        self, method: str, path: str, parameters: dict[str, Any], body: bytes | None, ends: float
    ) -> tuple[int, Any, bytes]:
        headers = {} if body is None else {"Content-Type": "application/octet-stream"}
        with self._session.request(
            method,
            self._url + path,
            params=parameters,
            data=body,
            headers=headers,
            timeout=self._timeout_s,
            allow_redirects=False,
            stream=True,
        ) as reply:
            content = bytearray()
            for piece in reply.iter_content(1 << 16):
                content += piece
                if len(content) > MAX_ANSWER_BYTES:
                    raise BadAnswer(f"{self._url} answers without end; is this placeray's URL?")
                if self._clock() > ends:  # a timeout of requests is one between two pieces
                    raise requests.Timeout
            return reply.status_code, reply.headers, bytes(content)

    def _read(self, status: int, content: bytes) -> dict[str, Any]:
        reason, message = _said(content)
        if status in (401, 403):
            raise ServiceRefused(f"{self._url} wants a valid token; set PLACERAY_TOKEN")
        if reason and status in (400, 408, 413, 415, 422):
            raise PhotoRefused(reason, message)
        if status == 500 and reason:
            raise BadAnswer(f"{self._url} failed: {message}")
        if status == 200:
            try:
                answer = json.loads(content)
            except ValueError:
                answer = None
            if isinstance(answer, dict):
                return answer
        raise BadAnswer(f"{self._url} answered with status {status} and no placeray answer; check the URL")


class _Bearer(requests.auth.AuthBase):
    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _said(content: bytes) -> tuple[str, str]:
    """Reason and message of an error answer; empty where it has none."""
    try:
        error = json.loads(content)["error"]
        return str(error["reason"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return "", ""


def _seconds(retry_after: str | None) -> float | None:
    """Seconds of a Retry-After header; dates and nonsense count as none."""
    try:
        value = float(retry_after or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
