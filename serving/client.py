"""A client of the service: sends photos, waits politely, and names what went wrong."""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import re
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from pydantic import ValidationError

from models.images.photo import Photo
from models.images.photo_encoding import encode_photo
from serving.answer import QueryResult
from serving.defaults import CANDIDATES, TOP_K
from serving.http.schema import QueryAnswer
from storage.errors import PlacerayError, RejectedError

__all__ = ["BadAnswer", "PhotoRefused", "PlaceClient", "ServiceRefused", "ServiceUnavailable"]

LOG = logging.getLogger(__name__)
MAX_ANSWER_BYTES = 16 << 20
RETRIED = (429, 502, 503, 504)
FIRST_PAUSE_S = 0.25
MAX_PAUSE_S = 8.0
MAX_MESSAGE_CHARACTERS = 300
TOKEN = re.compile(r"[!-~]+")  # what a header can carry: anything else would fail while it is sent


class ServiceUnavailable(PlacerayError):
    """The service did not answer within the time given."""

    reason = "service_unavailable"


class ServiceRefused(PlacerayError):
    """The token was not accepted, or the URL cannot be used."""

    reason = "service_refused"


class BadAnswer(PlacerayError):
    """The response is not that of a placeray service."""

    reason = "bad_answer"


class PhotoRefused(RejectedError):
    """The service cannot use this photo or these parameters.

    Attributes:
        reason: Machine-readable, as the service gave it.
    """

    reason = "photo_refused"


class PlaceClient:
    """Asks one service. A query changes nothing, so it is sent again when nobody could take it.

    Args:
        url: Of the service, such as `http://127.0.0.1:8000`.
        token: Bearer token; sent to this URL's host only, redirects are not followed. A warning is logged
            where it would travel unencrypted beyond this machine.
        timeout_s: Longest silence of the service within one try.
        patience_s: Longest time for one photo with all its tries.
        sleep: Waits between retries.
        clock: Seconds.

    Raises:
        ServiceRefused: the URL or the token cannot be used.
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
        host = _host(url)
        token = (token or "").strip()
        if not host:
            shown = re.sub(r"//[^/]*@", "//...@", url)  # a password is not repeated
            raise ServiceRefused(f"{shown!r} is not a service's URL; give one such as http://127.0.0.1:8000")
        if token and not TOKEN.fullmatch(token):
            raise ServiceRefused("the token has invalid characters; set PLACERAY_TOKEN again")
        if token and url.lower().startswith("http:") and not _is_loopback(host):
            LOG.warning("the token travels unencrypted to %s; use https", host)
        # A proxy named in the environment is used for other machines only.
        self._proxies = {"http": "", "https": ""} if _is_loopback(host) else {}
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._sleep = sleep
        self._clock = clock
        self._session = requests.Session()
        self._session.auth = _Bearer(token)  # set in any case, so that no ~/.netrc replaces it

    def answer(
        self,
        photo: Photo,
        *,
        top_k: int = TOP_K,
        candidates: int = CANDIDATES,
        rerank: bool = True,
    ) -> QueryResult:
        """Rank the places where a photo may have been taken; the same class as of `QueryEngine.answer`.

        Args:
            photo: The bytes or the path of a JPEG, PNG or WebP, a PIL image, or upright (H, W, 3) uint8 RGB.
                Images and arrays are sent as PNG, without loss.
            top_k: Number of places wanted.
            candidates: Hits that are re-ranked.
            rerank: False keeps the order of the global descriptors.

        Raises:
            ImageRejected: the file cannot be read, or the pixels are not those of a photo.
            PhotoRefused: the photo or a parameter cannot be used.
            ServiceUnavailable, ServiceRefused, BadAnswer: see each.
        """
        answer = self.query(encode_photo(photo), top_k=top_k, candidates=candidates, rerank=rerank)
        return QueryResult.from_dict(answer)

    def query(
        self, image: bytes, *, top_k: int = TOP_K, candidates: int = CANDIDATES, rerank: bool = True
    ) -> dict[str, Any]:
        """Rank the places where a photo may have been taken.

        Args:
            image: An encoded JPEG, PNG or WebP.
            top_k: Number of places wanted.
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
        try:
            QueryAnswer.model_validate(answer, strict=True)
        except ValidationError as error:
            field = ".".join(str(part) for part in error.errors()[0]["loc"])
            message = f"{self._url} answered with an unexpected {field[:80]!r}; is this placeray's URL?"
            raise BadAnswer(message) from None
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
                trouble = f"status {status}: {_error_of(content)[1] or 'no reason given'}"
                wanted_s = _seconds(headers.get("retry-after"))
                if wanted_s is not None:
                    trouble += f", retry after {wanted_s:g} s"
            except requests.Timeout:
                trouble = "it does not answer in time"
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
                if isinstance(error, requests.exceptions.SSLError) and not _is_cut(error):
                    message = f"{self._url} is not trusted or encrypted; check its certificate and the URL"
                    raise BadAnswer(message) from error
                trouble = "no connection, or it was interrupted"
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                raise BadAnswer(f"{self._url} cannot be asked ({type(error).__name__}); check it") from error
            if wanted_s is None:
                pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** min(attempt, 16))
            else:
                pause_s = max(wanted_s, FIRST_PAUSE_S)  # `Retry-After: 0` for ever must not become a storm
            if self._clock() + pause_s > ends:
                raise ServiceUnavailable(
                    f"{self._url} could not be asked ({trouble}); is it running, and will it be less busy "
                    "later?"
                )
            if attempt == 2:  # by now somebody wonders why nothing happens
                LOG.warning("%s: %s; retrying for up to %.0f s", self._url, trouble, ends - self._clock())
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
            timeout=max(0.05, min(self._timeout_s, ends - self._clock())),
            proxies=self._proxies,
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
        reason, message = _error_of(content)
        if status in (401, 403):
            raise ServiceRefused(f"{self._url} wants a valid token; set PLACERAY_TOKEN")
        if reason and status in (400, 408, 413, 415, 422):
            raise PhotoRefused(reason, message)
        if status == 500 and reason:
            raise BadAnswer(f"{self._url} failed: {message}")
        if status == 200:
            answer = _parsed(content)
            if isinstance(answer, dict):
                return answer
        raise BadAnswer(f"{self._url} answered with status {status} and no valid body; check the URL")


class _Bearer(requests.auth.AuthBase):
    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _parsed(content: bytes) -> Any:
    """JSON as Python's values; None for anything else."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):  # the latter for a million brackets
        return None


def _error_of(content: bytes) -> tuple[str, str]:
    """Reason and message of an error answer, fit for a terminal; empty where it has none."""
    try:
        error = _parsed(content)["error"]
        return _plain(error["reason"]), _plain(error["message"])
    except (KeyError, TypeError):
        return "", ""


def _plain(text: object) -> str:
    return "".join(c if c.isprintable() else " " for c in str(text)[:MAX_MESSAGE_CHARACTERS])


def _seconds(retry_after: str | None) -> float | None:
    """Seconds of a Retry-After header, given as such or as a date; nonsense counts as none."""
    try:
        value = float(retry_after or "")
    except ValueError:
        return _seconds_until(retry_after or "")
    return value if math.isfinite(value) and value >= 0 else None


def _seconds_until(date: str) -> float | None:
    try:
        when = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, round((when - datetime.now(UTC)).total_seconds()))


def _is_cut(error: BaseException | None) -> bool:
    """Whether an encrypted connection ended early, in contrast to one that is refused for what it is."""
    while error is not None:
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _host(url: str) -> str:
    """Host of a service's URL; empty where the URL cannot be used."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host.encode("idna")  # refuses labels that are empty or too long
        usable = parts.scheme in ("http", "https") and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        return ""
    return host if usable and not re.search(r"[\s?#\\]", url) else ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
