"""Access: tokens, paths outside of the folders, connections to other hosts."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route

from serving.http.page_files import LEAFLET, WEB, static_paths
from serving.http.routes import build_routes
from storage.store import Store
from tests.support.asgi_client import ADMIN_TOKEN, METRICS_TOKEN, TOKEN, TOKENS
from tests.support.city_store import CityStore
from tests.support.http_client import TELLTALE, Answer, ask, ask_raw, check_no_leaks, multipart, reason
from tests.support.malformed_multipart import KIND, PART
from tests.support.serve_client import wait_for
from tests.support.service_server import Running, running_service

JPEG = "image/jpeg"
BAD_TOKEN = "wrong-token-0123456789"
CALLERS = {"nobody": None, "bad": BAD_TOKEN, "metrics": METRICS_TOKEN, "read": TOKEN, "admin": ADMIN_TOKEN}
# Every route, and what a caller without a token, with a bad one and with each role gets.
OPEN, GUARDED, METRICS = (200, 200, 200, 200, 200), (401, 401, 403, 200, 200), (401, 401, 200, 403, 200)
TABLE = {
    ("GET", "/"): OPEN,
    ("HEAD", "/"): OPEN,
    ("GET", "/healthz"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("GET", "/web/*"): OPEN,
    ("GET", "/web/leaflet/*"): OPEN,
    ("POST", "/v1/query"): GUARDED,
    ("POST", "/v1/matches"): GUARDED,
    ("POST", "/v1/track"): GUARDED,
    ("GET", "/v1/image"): GUARDED,
    ("GET", "/v1/places"): GUARDED,
    ("GET", "/v1/info"): GUARDED,
    ("GET", "/metrics"): METRICS,
    ("GET", "/openapi.json"): OPEN,
    ("HEAD", "/openapi.json"): OPEN,
}


@pytest.fixture(scope="module")
def closed(city_store: CityStore) -> Iterator[Running]:
    """A service with tokens."""
    with running_service(city_store.uri, tokens=TOKENS) as service:
        yield service


@pytest.fixture(scope="module")
def image_id(city_store: CityStore) -> str:
    return str(Store.open(city_store.uri).places(48)[0]["image_id"])


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


# F33: every route and every caller


def test_table_names_every_route_and_no_other(closed: Running) -> None:
    routes = set()
    for route in build_routes(closed.service).routes:
        if isinstance(route, Mount):
            routes.add(("GET", f"{route.path}/*"))
        else:
            assert isinstance(route, APIRoute | Route)
            routes |= {(method, route.path) for method in route.methods or ()}
    assert routes == set(TABLE)


@pytest.mark.parametrize(("method", "path"), list(TABLE), ids=" ".join)
def test_each_route_lets_its_callers_in_only(
    closed: Running, city_store: CityStore, image_id: str, method: str, path: str
) -> None:
    files = {"/web/*": "/web/app.js", "/web/leaflet/*": "/web/leaflet/leaflet.js"}
    parameters = {"image_id": image_id} if path in ("/v1/image", "/v1/matches") else {}
    body, kind = (city_store.queries[0].read_bytes(), JPEG) if method == "POST" else (None, None)
    if path == "/v1/track":
        body, kind = b'{"frames": [null]}', "application/json"
    for (caller, token), expected in zip(CALLERS.items(), TABLE[method, path], strict=True):
        url = closed.url + files.get(path, path)
        answer = ask(url, method, body=body, kind=kind, headers=bearer(token), **parameters)
        assert answer.status == expected, caller
        if expected == 401:
            assert answer.headers["www-authenticate"].startswith("Bearer ")
            assert method == "HEAD" or reason(answer) == "unauthorized"
        if expected == 403:
            assert reason(answer) == "forbidden"
            needed = "metrics" if path == "/metrics" else "read"
            assert f"'{needed}'" in answer.json()["error"]["message"]
        if method == "GET" and expected == 200 == TABLE[method, path][0] and path != "/":
            # What is open is open for reading only.
            posted = ask(url, "POST", body=b"x", headers=bearer(None))
            assert (posted.status, reason(posted)) == (401, "unauthorized")


@pytest.mark.parametrize("path", [path for path in static_paths() if "/images/" not in path])
def test_each_file_of_the_page_is_open(closed: Running, path: str) -> None:
    assert ask(closed.url + path).status == 200


@pytest.mark.parametrize(
    "target",
    [
        *("//v1/info", "/v1//info", "/v1%2finfo", "/%761/info", "/v1/info/", "/V1/INFO", "/v1/info%00"),
        *("/healthz%2f..%2fv1%2finfo", "/healthz/../v1/info", "/healthz/", "//healthz", "/%68ealthz"),
        *("/web/..%2fv1%2finfo", "/web/../v1/info", "/web/%2e%2e/v1/info", "/web/app.js/../../../v1/info"),
        *("/web/nobody.js", "/web//app.js", "/web/%61pp.js", "/./healthz", "/healthz;x=/v1/info", "/web/"),
        *("/v1/info;/healthz", "/v1/info%3f/healthz", "/v1/info%23", "*"),
    ],
)
def test_other_spellings_of_a_path_need_a_token(closed: Running, target: str) -> None:
    for token in (None, BAD_TOKEN):
        for method in ("GET", "HEAD", "POST", "OPTIONS"):
            answer = ask_raw(closed.url, target, method, headers=bearer(token))
            assert answer.status == 401, method
    for token in (TOKEN, ADMIN_TOKEN):
        answer = ask_raw(closed.url, target, headers=bearer(token))
        assert answer.status in (200, 404)
        assert b'"rows"' not in answer.body or target in ("/%761/info", "/v1%2finfo")


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": TOKEN},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": f"Bearer {TOKEN} x"},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer \xff\xfe".encode("latin-1").decode("latin-1")},
        {"x-authorization": f"Bearer {TOKEN}"},
        {"cookie": f"authorization=Bearer {TOKEN}"},
        {"x-forwarded-for": "127.0.0.1", "x-original-url": "/healthz", "x-rewrite-url": "/healthz"},
        {"x-http-method-override": "GET", "x-forwarded-host": "127.0.0.1"},
    ],
    ids=str,
)
def test_a_token_comes_in_its_header_or_not_at_all(closed: Running, headers: dict[str, str]) -> None:
    for target in ("/v1/info", f"/v1/info?token={TOKEN}&access_token={TOKEN}"):
        answer = ask_raw(closed.url, target, headers=headers)
        assert (answer.status, reason(answer)) == (401, "unauthorized")


def test_no_token_comes_into_the_logs(
    closed: Running, city_store: CityStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    photo = city_store.queries[0].read_bytes()
    for token in (TOKEN, ADMIN_TOKEN, BAD_TOKEN):
        for scheme in ("Bearer", "bearer", "Basic"):
            headers = {"authorization": f"{scheme} {token}", "cookie": token, "user-agent": token}
            for target in ("/v1/info", f"/v1/info?token={token}", f"/nobody?{token}"):
                ask_raw(closed.url, target, headers=headers)
            ask(f"{closed.url}/v1/query", "POST", body=photo, kind=JPEG, headers=headers)

    def logged() -> list[dict[str, Any]]:
        lines = [record.msg for record in caplog.records if record.name.startswith("serving.http.")]
        return [line for line in lines if isinstance(line, dict) and line["event"] == "request"]

    wait_for(lambda: len(logged()) >= 36, patience_s=10)  # a line is logged after its response
    requests_logged = logged()
    assert {line["status"] for line in requests_logged} >= {200, 401, 404}
    for record in caplog.records:
        leaked = [token for token in (*TOKENS, BAD_TOKEN) if token in record.getMessage()]
        # A server may log the query string of a client that put its token there; the service does not.
        assert not leaked or (not record.name.startswith("serving") and "?" in record.getMessage()), (
            record.name
        )


def test_a_role_is_not_decided_by_how_a_path_is_written(closed: Running) -> None:
    for target in ("/metrics", "/%6detrics", "/m%65trics"):
        assert ask_raw(closed.url, target, headers=bearer(TOKEN)).status == 403, target
    for target in ("/v1/info", "/%761/info", "/v1%2finfo", "/v1/places", "/v1/image?image_id=a"):
        assert ask_raw(closed.url, target, headers=bearer(METRICS_TOKEN)).status == 403, target


def test_only_admin_sees_where_photos_lie(closed: Running, city_store: CityStore) -> None:
    photo = city_store.queries[0].read_bytes()
    answers = {
        role: ask(f"{closed.url}/v1/query", "POST", body=photo, kind=JPEG, headers=bearer(token)).json()
        for role, token in (("read", TOKEN), ("admin", ADMIN_TOKEN))
    }
    root = f"{city_store.folder}/"
    assert all(match["uri"].startswith(root) for match in answers["admin"]["matches"])
    shown = [match["uri"] for match in answers["read"]["matches"]]
    assert all(shown)
    assert not [uri for uri in shown if uri.startswith("/")]
    for match, full in zip(shown, answers["admin"]["matches"], strict=True):
        assert full["uri"].endswith(f"/{match}")
    del answers["read"]["timings_ms"]
    assert str(city_store.folder) not in json.dumps(answers["read"])


# F31: paths out of the folders

_opened: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is None or event != "open" or not isinstance(arguments[0], str | bytes):
        return
    thread = threading.current_thread()  # the client's, and those of a Ray of other tests, do not count
    if thread is not threading.main_thread() and not thread.name.startswith("ray"):
        _opened.append(os.fsdecode(arguments[0]))


@pytest.fixture(scope="module")
def loaded(running: Running, image_id: str) -> None:
    """What the service loads at first is loaded."""
    for path in ("/web/app.js", "/web/leaflet/leaflet.js"):
        assert ask(running.url + path).status == 200
    assert ask(f"{running.url}/v1/image", image_id=image_id).status == 200


@pytest.fixture
def opened(city_store: CityStore, loaded: None) -> Iterator[list[str]]:
    """Every path that the service opens; each must lie in one of its folders."""
    global _opened
    if not getattr(sys, "_placeray_watched", False):
        sys.addaudithook(_watch)  # stays for good, and is idle outside of these tests
        sys._placeray_watched = True  # type: ignore[attr-defined]
    _opened = seen = []
    try:
        yield seen
    finally:
        _opened = None
    allowed = [Path(root).resolve() for root in (city_store.folder, WEB, LEAFLET)]
    outside = [path for path in seen if not any(Path(path).resolve().is_relative_to(a) for a in allowed)]
    assert not outside


HOSTILE_IDS = [
    *("../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "..", ".", "/", "~/.ssh/id_rsa", "\\\\x\\c$"),
    *(
        "%2e%2e%2fetc%2fpasswd",
        "..%2f..%2fetc%2fpasswd",
        "....//....//etc/passwd",
        "\x00",
        "a\x00/etc/passwd",
    ),
    *("/proc/self/environ", "/dev/zero", "card.json", "../store/card.json", "records.lance", "x" * 1024),
    *("'", "'; DROP TABLE records; --", "' OR '1'='1", "\\'", "'' OR true --", "%", "_", "*", "image_id"),
    *("\ud7ff\ue000", "\u202e", "\U0001f3d9", "${jndi:ldap://127.0.0.1/x}", "{{7*7}}", "\r\nx: y", "NULL"),
]


@pytest.mark.parametrize("hostile", HOSTILE_IDS, ids=ascii)
def test_hostile_ids_open_nothing_and_find_nothing(
    running: Running, city_store: CityStore, opened: list[str], hostile: str
) -> None:
    image = ask(f"{running.url}/v1/image", image_id=hostile)
    assert (image.status, reason(image)) == (404, "unknown_image")
    photo = city_store.queries[0].read_bytes()
    lines = ask(f"{running.url}/v1/matches", "POST", body=photo, kind=JPEG, image_id=hostile)
    assert (lines.status, reason(lines)) == (404, "unknown_image")


@pytest.mark.parametrize(
    "rest",
    [
        *("../routes.py", "..%2froutes.py", "%2e%2e/routes.py", "%2e%2e%2froutes.py", "..%5croutes.py"),
        *("../../../../../../../../etc/passwd", "..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd"),
        *("/etc/passwd", "//etc/passwd", "%2fetc%2fpasswd", "%2f%2fetc/passwd", "C:%5cx", "app.js%00.css"),
        *("%00", "x" * 4000, "%252e%252e/routes.py", "....//routes.py", ".", "..", "app.js/", "app.js/.."),
        *("%c0%ae%c0%ae/routes.py", "%ff", "..;/routes.py", "leaflet/..%2f..%2froutes.py", "index.html/x"),
    ],
)
def test_hostile_paths_open_nothing_and_find_nothing(running: Running, opened: list[str], rest: str) -> None:
    for folder in ("/web/", "/web/leaflet/", "/"):
        answer = ask_raw(running.url, folder + rest)
        assert answer.status == 404, folder
        assert reason(answer) == "not_found"


def test_files_of_the_page_are_opened_where_they_are(running: Running, opened: list[str]) -> None:
    assert ask(f"{running.url}/web/app.js").status == 200
    assert any(path.endswith("/web/app.js") for path in opened), "the watch does see"


# F30: nothing is fetched on behalf of a request


def test_a_url_in_a_request_is_never_followed(running: Running, city_store: CityStore) -> None:
    photo = city_store.queries[0].read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as canary:
        url = f"http://127.0.0.1:{canary.getsockname()[1]}/photo.jpg"
        named = json.dumps({"url": url, "image": url, "image_url": url}).encode()
        text, file = 'Content-Disposition: form-data; name="image"', url.encode()
        svg = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}"/></svg>'.encode()
        bodies = [
            ("application/json", named),
            ("application/x-www-form-urlencoded", b"url=" + file),
            ("text/uri-list", file),
            ("message/external-body; access-type=URL", file),
            (JPEG, file),
            (JPEG, named),
            ("image/svg+xml", svg),
            (JPEG, b"%!PS-Adobe-3.0 EPSF-3.0\n(" + file + b") run"),
            (KIND, multipart((text, file))),
            (KIND, multipart((text.replace("image", "url"), file))),
            (KIND, multipart((PART, file))),
            (KIND, multipart((PART.replace("a.jpg", url), b""))),
            (KIND, multipart((PART + f"\r\nContent-Location: {url}", b""))),
        ]
        for kind, body in bodies:
            for path in ("/v1/query", "/v1/matches"):
                answer = ask(running.url + path, "POST", body=body, kind=kind, image_id=url)
                assert 400 <= answer.status < 500, kind
        headers = {"referer": url, "x-forwarded-host": url, "forwarded": f"for={url}", "link": f"<{url}>"}
        answer = ask(f"{running.url}/v1/query", "POST", body=photo, kind=JPEG, headers=headers, url=url)
        assert answer.status == 200
        assert ask(f"{running.url}/v1/image", image_id=url).status == 404
        canary.settimeout(0.3)
        with pytest.raises(TimeoutError):
            canary.accept()


# F35: the checks of the responses themselves


@pytest.mark.parametrize(
    "leak",
    [
        'File "/usr/lib/python3.11/json/decoder.py", line 1',
        "Traceback (most recent call last):",
        "cannot open /tmp/x/store/card.json",
        "'/home/someone/photos'",
        "starlette 1.10.0",
        "Python/3.11",
        "see https://errors.pydantic.dev/2.14/v/x",
        "<PIL.Image at 0x7f0b4dfcd810>",
    ],
)
def test_an_answer_that_tells_too_much_is_noticed(leak: str) -> None:
    assert TELLTALE.search(leak)
    with pytest.raises(AssertionError):
        check_no_leaks(Answer(200, {}, json.dumps({"message": leak}).encode()))
    with pytest.raises(AssertionError):
        check_no_leaks(Answer(200, {"server": "x"}, b""))
    check_no_leaks(Answer(200, {}, b'{"matches": [{"uri": "/home/someone/a.jpg"}]}'))


def test_no_known_answer_says_what_runs_here(running: Running, city_store: CityStore) -> None:
    secrets = [city_store.uri, str(city_store.folder), os.path.dirname(__file__), sys.prefix]
    photo = city_store.queries[0].read_bytes()
    for path in (
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/v1/info",
        "/v1/places",
        "/nobody",
    ):
        text = ask(running.url + path).body.decode()
        assert not [secret for secret in secrets if secret in text], path
    lines = ask(f"{running.url}/v1/matches", "POST", body=photo, kind=JPEG, image_id="nobody")
    assert not [secret for secret in secrets if secret in lines.body.decode()]
