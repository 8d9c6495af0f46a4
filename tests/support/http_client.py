"""HTTP requests to the service; each response is checked for leaked paths, traces and versions."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

__all__ = ["Answer", "ask", "ask_raw", "check_no_leaks", "multipart", "reason"]

PATIENCE_S = 60.0
# Absolute paths of this machine, traces, and whatever runs here with its version.
TELLTALE = re.compile(
    r"(?<![\w./:@-])/(?:bin|dev|etc|home|lib|mnt|opt|proc|root|srv|sys|tmp|usr|var|work)/"
    r"|Traceback|File \"|site-packages|\.py\b|\bat 0x[0-9a-f]{6,}"
    r"|(?i:\b(?:c?python|uvicorn|h11|httptools|starlette|fastapi|pydantic|pillow|pil|torch|timm|ray|lance(?:db)?"
    r"|numpy|pyarrow|faiss)[ /_-]?v?\d+\.\d)|pydantic\.dev|PIL\."
)
FORBIDDEN_HEADERS = ("server", "x-powered-by", "via")


@dataclass(frozen=True)
class Answer:
    """One answer of the service."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    url: str,
    method: str = "GET",
    /,
    *,
    body: bytes | None = None,
    kind: str | None = None,
    headers: Mapping[str, str] | None = None,
    **parameters: Any,
) -> Answer:
    """Send one request with `requests`.

    Args:
        kind: Content type.
        parameters: Of the query string.
    """
    sent = {**(headers or {}), **({"content-type": kind} if kind else {})}
    reply = requests.request(
        method, url, params=parameters, data=body, headers=sent, timeout=PATIENCE_S, allow_redirects=False
    )
    return checked(url, Answer(reply.status_code, reply.headers, reply.content))


def ask_raw(
    url: str,
    target: str,
    method: str = "GET",
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request whose target goes out exactly as written; `requests` would tidy it up."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in {
            **(headers or {}),
            **({"content-length": str(len(body))} if body else {}),
        }.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        reply = connection.getresponse()
        answered = {name.lower(): value for name, value in reply.getheaders()}
        return checked(target, Answer(reply.status, answered, reply.read()))
    finally:
        connection.close()


def checked(target: str, answer: Answer) -> Answer:
    assert answer.status != 500, answer.body
    assert not 300 <= answer.status < 304, "the service redirects nobody"
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", answer.headers["x-request-id"])
    if "/web/" not in target:  # the page's files are public, and Leaflet names its version
        check_no_leaks(answer)
    if answer.status >= 400 and answer.body:
        reason(answer)
    if answer.status == 503:
        assert int(answer.headers["retry-after"]) >= 1
    return answer


def check_no_leaks(answer: Answer) -> None:
    assert not [name for name in FORBIDDEN_HEADERS if name in answer.headers]
    text = answer.body.decode("utf-8", "replace")
    if answer.headers.get("content-type") == "image/jpeg":
        text = ""  # noise may look like anything; it is checked as a picture
    elif answer.status == 200 and '"matches"' in text and '"uri"' in text:
        content = answer.json()
        for match in content.get("matches", ()):
            del match["uri"]  # where the photo was indexed from is part of the answer
        text = json.dumps(content)
    everything = repr(dict(answer.headers)) + text
    leak = TELLTALE.search(everything)
    assert leak is None, f"{leak[0]!r} in {everything[max(0, leak.start() - 80) : leak.end() + 80]!r}"


def reason(answer: Answer) -> str:
    """The reason of an error, after checking that it has the one shape."""
    assert answer.status >= 400
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert list(content) == ["error"]
    assert sorted(content["error"]) == ["message", "reason"]
    assert re.fullmatch(r"[a-z_]+", content["error"]["reason"])
    assert len(content["error"]["message"]) > 10
    return str(content["error"]["reason"])


def multipart(*parts: tuple[str, bytes], boundary: str = "b0undary") -> bytes:
    """A multipart body; each part is its header lines and its content."""
    pieces = [f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n" for head, content in parts]
    return b"".join(pieces) + f"--{boundary}--\r\n".encode()
