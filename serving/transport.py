"""HTTP requests to a service: authentication, retries, and an error type for each kind of failure."""

from __future__ import annotations

import logging
import re
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from serving.http.headers import is_loopback
from serving.response_body import error_of, parse_json, retry_after_seconds
from storage.errors import PlacerayError, RejectedError

__all__ = ["BadAnswer", "PhotoRefused", "ServiceRefused", "ServiceUnavailable", "Transport"]

LOG = logging.getLogger(__name__)
MAX_ANSWER_BYTES = 16 << 20
RETRIED = (429, 502, 503, 504)
FIRST_PAUSE_S = 0.25
MAX_PAUSE_S = 8.0
TOKEN = re.compile(r"[!-~]+")  # valid in a header


class ServiceUnavailable(PlacerayError):
    """The service did not answer in time."""

    reason = "service_unavailable"


class ServiceRefused(PlacerayError):
    """The token was not accepted, or the URL or the token is invalid."""

    reason = "service_refused"


class BadAnswer(PlacerayError):
    """The response is not from a placeray service."""

    reason = "bad_answer"


class PhotoRefused(RejectedError):
    """The service cannot use this photo or these parameters.

    Attributes:
        reason: Machine-readable, from the service.
    """

    reason = "photo_refused"


class Transport:
    """Sends requests to one service.

    Args:
        url: Of the service.
        token: Bearer token.
        timeout_s: Read timeout of one attempt.
        patience_s: Longest time for one request with all retries.
        sleep: Waits between retries.
        clock: Seconds.

    Attributes:
        url: Of the service, without a slash at the end.

    Raises:
        ServiceRefused: the URL or the token cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        timeout_s: float,
        patience_s: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        host = _host(url)
        token = (token or "").strip()
        if not host:
            shown = re.sub(r"//[^/]*@", "//...@", url)  # the message must not show a password
            raise ServiceRefused(f"{shown!r} is not a service's URL; give one such as http://127.0.0.1:8000")
        if token and not TOKEN.fullmatch(token):
            raise ServiceRefused("the token has invalid characters; set PLACERAY_TOKEN again")
        if token and url.lower().startswith("http:") and not is_loopback(host):
            LOG.warning("the token travels unencrypted to %s; use https", host)
        # A proxy named in the environment is used for other machines only.
        self._proxies = {"http": "", "https": ""} if is_loopback(host) else {}
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._sleep = sleep
        self._clock = clock
        self._session = requests.Session()
        self._session.auth = _Bearer(token)  # set without a token too, so that ~/.netrc is not used

    def send(
        self,
        method: str,
        path: str,
        parameters: dict[str, Any],
        body: bytes | None,
        *,
        content_type: str = "application/octet-stream",
    ) -> dict[str, Any]:
        """Send a request, with retries, and return the JSON object of the response.

        Args:
            method: Of HTTP.
            path: Below the service's URL.
            parameters: Of the query string.
            body: Of the request.
            content_type: Of the body.

        Raises:
            PhotoRefused, ServiceUnavailable, ServiceRefused, BadAnswer: see each.
        """
        deadline = self._clock() + self._patience_s
        attempt = 0
        while True:
            retry_after_s = None
            try:
                status, headers, content = self._send_once(
                    method, path, parameters, body, content_type, deadline
                )
                if status not in RETRIED:
                    return self._read(status, content)
                retry_after_s = retry_after_seconds(headers.get("retry-after"))
                failure = f"status {status}: {error_of(content)[1] or 'no reason given'}"
                if retry_after_s is not None:
                    failure += f", retry after {retry_after_s:g} s"
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                failure = self._failure(error)
            pause_s = _pause_s(attempt, retry_after_s)
            if self._clock() + pause_s > deadline:
                message = f"{self.url} did not answer ({failure}); check that it is running, or try later"
                raise ServiceUnavailable(message)
            if attempt == 2:  # long enough that a user wonders why nothing happens
                LOG.warning("%s: %s; retrying for up to %.0f s", self.url, failure, deadline - self._clock())
            self._sleep(pause_s)
            attempt += 1

    def _failure(self, error: Exception) -> str:
        """Describe a failed attempt that may be repeated.

        Raises:
            BadAnswer: repeating it would not help.
        """
        if isinstance(error, requests.Timeout):
            return "timeout"
        if isinstance(error, requests.exceptions.SSLError) and not _is_truncated(error):
            message = f"{self.url} does not use TLS, or its certificate is not trusted; check both"
            raise BadAnswer(message) from error
        if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
            return "no connection, or the connection was interrupted"
        message = f"the request to {self.url} failed ({type(error).__name__}); check the URL"
        raise BadAnswer(message) from error

    def _send_once(
        self,
        method: str,
        path: str,
        parameters: dict[str, Any],
        body: bytes | None,
        content_type: str,
        deadline: float,
    ) -> tuple[int, Any, bytes]:
        headers = {} if body is None else {"Content-Type": content_type}
        with self._session.request(
            method,
            self.url + path,
            params=parameters,
            data=body,
            headers=headers,
            timeout=max(0.05, min(self._timeout_s, deadline - self._clock())),
            proxies=self._proxies,
            allow_redirects=False,
            stream=True,
        ) as response:
            content = bytearray()
            for chunk in response.iter_content(1 << 16):
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise BadAnswer(f"the response of {self.url} is too long; is this placeray's URL?")
                if self._clock() > deadline:  # the timeout of requests is one between two chunks
                    raise requests.Timeout
            return response.status_code, response.headers, bytes(content)

    def _read(self, status: int, content: bytes) -> dict[str, Any]:
        reason, message = error_of(content)
        if status == 401:
            raise ServiceRefused(f"{self.url} requires a valid token; set PLACERAY_TOKEN")
        if status == 403:
            why = message or "the token does not allow this"
            raise ServiceRefused(f"{self.url} refused the token of PLACERAY_TOKEN: {why}")
        if status == 421:
            raise ServiceRefused(f"{self.url} does not answer to this host name: {message or 'use another'}")
        if reason and status in (400, 408, 409, 413, 415, 422):
            raise PhotoRefused(reason, message)
        if status == 500 and reason:
            raise BadAnswer(f"{self.url} failed: {message}")
        if status == 200:
            answer = parse_json(content)
            if isinstance(answer, dict):
                return answer
        raise BadAnswer(f"{self.url} answered with status {status} and no valid body; check the URL")


def _pause_s(attempt: int, retry_after_s: float | None) -> float:
    if retry_after_s is None:
        return min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(attempt, 16))
    return max(retry_after_s, FIRST_PAUSE_S)  # `Retry-After: 0` must not become a busy loop


class _Bearer(requests.auth.AuthBase):
    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _is_truncated(error: BaseException | None) -> bool:
    """Return whether an encrypted connection ended early, and not because it is not trusted."""
    while error is not None:
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _host(url: str) -> str:
    """Return the host of a service's URL; empty where the URL cannot be used."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host.encode("idna")  # refuses labels that are empty or too long
        usable = parts.scheme in ("http", "https") and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        return ""
    return host if usable and not re.search(r"[\s?#\\]", url) else ""
