"""The client against loopback servers with good, malformed, late and missing responses."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main
from serving.answer import unknown_place
from serving.client import BadAnswer, PhotoRefused, PlaceClient, ServiceRefused, ServiceUnavailable
from tests.support.city_store import CityStore
from tests.support.service_server import Running, running_service

Reply = Callable[[BaseHTTPRequestHandler], None]
GOOD: dict[str, Any] = {
    "request_id": "r1",
    "model": "selavpr-s",
    "store_version": 3,
    "degraded": False,
    "matches": [],
    "timings_ms": {"total": 1.0},
    "place": unknown_place(),
    "of_a_later_version": True,
}
TOKEN = "a-token-of-some-length"
SCRAPER = "scraper-token-0123456789"


def answer(status: int, body: object, **headers: str) -> Reply:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return reply


def error(status: int, reason: str, **headers: str) -> Reply:
    return answer(status, {"error": {"reason": reason, "message": f"{reason}, in words"}}, **headers)


def cut(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    handler.close_connection = True


class Server:
    """Sends these replies in turn, then repeats the last one."""

    def __init__(self, *replies: Reply) -> None:
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        remaining = list(replies)
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                (remaining.pop(0) if len(remaining) > 1 else remaining[0])(self)

            do_GET = do_POST  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[Server]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


class Clock:
    """A clock that only advances by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def client(url: str, clock: Clock, **options: Any) -> PlaceClient:
    return PlaceClient(url, sleep=clock.sleep, clock=lambda: clock.now, **options)


@pytest.mark.parametrize(
    ("replies", "waits"),
    [
        ([answer(200, GOOD)], []),
        ([error(503, "overloaded", Retry_After="3"), answer(200, GOOD)], [3.0]),
        (
            [error(503, "not_ready", Retry_After="1"), error(503, "x", Retry_After="2"), answer(200, GOOD)],
            [1, 2],
        ),
        ([answer(502, b"<html>"), answer(200, GOOD)], [0.25]),
        ([cut, cut, answer(200, GOOD)], [0.25, 0.5]),
        ([error(503, "overloaded", Retry_After="nonsense"), answer(200, GOOD)], [0.25]),
        ([error(503, "overloaded", Retry_After="0")] * 2 + [answer(200, GOOD)], [0.25, 0.25]),
        ([error(429, "x", Retry_After=formatdate(0, usegmt=True)), answer(200, GOOD)], [0.25]),
    ],
)
def test_query_is_retried_until_it_is_answered(replies: list[Reply], waits: list[float]) -> None:
    clock = Clock()
    with Server(*replies).running() as server:
        assert client(server.url, clock).query(b"photo", top_k=3, rerank=False) == GOOD
    assert clock.waits == waits
    for path, _, body in server.seen:
        assert path == "/v1/query?top_k=3&rerank=false"
        assert body == b"photo"


def test_an_answer_of_an_earlier_service_has_a_place_without_a_position() -> None:
    earlier = {name: value for name, value in GOOD.items() if name != "place"}
    with Server(answer(200, earlier), answer(200, earlier | {"place": None})).running() as server:
        answers = [client(server.url, Clock()).query(b"photo") for _ in range(2)]
    assert [(each["place"]["position"], each["place"]["evidence"]) for each in answers] == [(None, [])] * 2


def test_candidates_are_the_service_s_unless_they_are_chosen() -> None:
    with Server(answer(200, GOOD)).running() as server:
        client(server.url, Clock()).query(b"photo", candidates=7)
        client(server.url, Clock()).query(b"photo")
    paths = [path for path, _, _ in server.seen]
    assert paths == ["/v1/query?top_k=5&rerank=true&candidates=7", "/v1/query?top_k=5&rerank=true"]


@pytest.mark.parametrize(
    "reply",
    [
        error(503, "overloaded"),
        error(503, "overloaded", Retry_After="0"),
        error(503, "overloaded", Retry_After="86400"),
        error(503, "overloaded", Retry_After=formatdate(time.time() + 86400, usegmt=True)),
        cut,
        answer(504, b""),
    ],
)
def test_query_that_is_never_answered_ends_with_a_named_error(reply: Reply) -> None:
    clock = Clock()
    with Server(reply).running() as server, pytest.raises(ServiceUnavailable, match="check that it"):
        client(server.url, clock, patience_s=20.0).query(b"photo")
    assert sum(clock.waits) <= 20.0
    assert len(server.seen) <= 20.0 / 0.25 + 1


def test_retry_after_beyond_the_patience_ends_at_once() -> None:
    clock = Clock()
    with (
        Server(error(503, "overloaded", Retry_After="86400")).running() as server,
        pytest.raises(ServiceUnavailable, match="overloaded, in words, retry after 86400 s"),
    ):
        client(server.url, clock).query(b"photo")
    assert clock.waits == []


def test_repeated_retries_log_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with Server(cut, cut, cut, cut, cut, answer(200, GOOD)).running() as server:
        client(server.url, Clock(), token=TOKEN).query(b"photo")
    assert caplog.text.count("retrying for") == 1
    assert TOKEN not in caplog.text


def test_unreachable_server_ends_with_a_named_error() -> None:
    clock = Clock()
    with pytest.raises(ServiceUnavailable):
        client("http://127.0.0.1:9", clock, patience_s=5.0).query(b"photo")
    assert len(clock.waits) >= 3


def test_slow_answer_times_out() -> None:
    late = threading.Event()

    def wait(handler: BaseHTTPRequestHandler) -> None:
        late.wait(20)
        handler.close_connection = True

    clock = Clock()
    with Server(wait).running() as server:
        with pytest.raises(ServiceUnavailable, match="timeout"):
            client(server.url, clock, timeout_s=0.2, patience_s=0.3).query(b"photo")
        late.set()


@pytest.mark.parametrize("status", [400, 408, 413, 415, 422])
def test_refused_photo_is_not_retried(status: int) -> None:
    clock = Clock()
    with (
        Server(error(status, "truncated")).running() as server,
        pytest.raises(PhotoRefused, match="truncated, in words") as caught,
    ):
        client(server.url, clock).query(b"photo")
    assert caught.value.reason == "truncated"
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "reply",
    [
        answer(200, b"<html>a shop</html>"),
        answer(200, [1, 2]),
        answer(200, {"some": "api"}),
        answer(200, {**GOOD, "matches": [{}]}),
        answer(200, {**GOOD, "timings_ms": {}, "matches": "many"}),
        answer(200, {**GOOD, "degraded": "no"}),
        answer(200, b"[" * 1_000_000),
        answer(404, b"nothing"),
        answer(302, b"", Location="http://127.0.0.1:9/"),
        answer(200, b"x" * (17 << 20)),
        error(500, "internal"),
    ],
)
def test_response_of_another_service_is_named(reply: Reply) -> None:
    with Server(reply).running() as server, pytest.raises(BadAnswer):
        client(server.url, Clock()).query(b"photo")
    assert len(server.seen) == 1


def test_token_goes_to_the_service_and_nowhere_else() -> None:
    with Server(answer(200, GOOD)).running() as other:
        moved = answer(307, b"", Location=f"{other.url}/v1/query")
        with Server(answer(200, GOOD), moved).running() as server:
            sender = client(server.url, Clock(), token=TOKEN)
            sender.query(b"photo")
            with pytest.raises(BadAnswer):
                sender.query(b"photo")
    assert server.seen[0][1]["authorization"] == f"Bearer {TOKEN}"
    assert other.seen == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://x/",
        "127.0.0.1:8000",
        "http://",
        "http://user:hunter2@x/",
        "http://:hunter2@x/",
        "file:///etc/x",
        "http://[::1",
        "http://x:99999",
        "http://x:eighty",
        "http://a..b/",
        f"http://{'a' * 64}.x/",
        "http://\u2100.x/",
        "http://x/?",
        "http://x/#top",
        "http://x/\r\nHost: y",
    ],
)
def test_unusable_url_is_refused(url: str) -> None:
    with pytest.raises(ServiceRefused, match="such as http") as caught:
        PlaceClient(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("token", ["first-half\nsecond-half", "first second", "naïve-token", "\x7f"])
def test_invalid_token_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(ServiceRefused, match="PLACERAY_TOKEN") as caught:
        PlaceClient("http://127.0.0.1:9", token=token)
    assert token not in str(caught.value)


def test_line_end_of_a_token_is_stripped() -> None:
    with Server(answer(200, GOOD)).running() as server:
        client(server.url, Clock(), token=f"{TOKEN}\n").query(b"photo")
    assert server.seen[0][1]["authorization"] == f"Bearer {TOKEN}"


def test_loopback_service_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server(answer(200, GOOD)).running() as proxy, Server(answer(200, GOOD)).running() as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        client(server.url, Clock(), token=TOKEN).query(b"photo")
        client("http://placeray.invalid", Clock()).query(b"photo")  # what the proxy is there for
    assert len(server.seen) == len(proxy.seen) == 1
    assert proxy.seen[0][0].startswith("http://placeray.invalid/")


def test_https_to_a_plain_http_server_fails_at_once() -> None:
    clock = Clock()
    with Server(answer(200, GOOD)).running() as server, pytest.raises(BadAnswer, match="certificate"):
        client(server.url.replace("http:", "https:"), clock).query(b"photo")
    assert clock.waits == []


def test_message_of_the_service_cannot_steer_the_terminal() -> None:
    body = {"error": {"reason": "trun\x1bcated", "message": "\x1b[2J" + "long " * 10_000}}
    with Server(answer(422, body)).running() as server, pytest.raises(PhotoRefused) as caught:
        client(server.url, Clock()).query(b"photo")
    assert (caught.value.reason + str(caught.value)).isprintable()
    assert len(str(caught.value)) <= 300


def test_answer_has_the_class_of_the_engine_s_answers(tmp_path: Path) -> None:
    place = {"image_id": "a", "uri": "a.jpg", "lat": None, "lon": None, "utm_e": 5e5, "utm_n": 4e6}
    match = {"rank": 1, **place, "similarity": 0.5, "mutual_matches": 7}
    (tmp_path / "photo.jpg").write_bytes(b"photo")
    with Server(answer(200, {**GOOD, "matches": [match]})).running() as server:
        by_bytes = client(server.url, Clock()).answer(b"photo", top_k=1)
        by_path = client(server.url, Clock()).answer(tmp_path / "photo.jpg", top_k=1)
    assert by_bytes == by_path
    assert by_bytes.request_id == "r1"
    assert by_bytes.matches[0].record.image_id == "a"
    assert by_bytes.matches[0].record.position.utm_e == 5e5
    assert [body for _, _, body in server.seen] == [b"photo"] * 2


def test_info_returns_the_response() -> None:
    with Server(answer(200, {"rows": 7})).running() as server:
        assert client(server.url, Clock()).info() == {"rows": 7}
    assert server.seen[0][0] == "/v1/info"


def test_token_over_plain_http_beyond_this_machine_warns(caplog: pytest.LogCaptureFixture) -> None:
    PlaceClient("http://10.1.2.3:8000", token=TOKEN)
    assert "unencrypted" in caplog.text
    assert TOKEN not in caplog.text
    caplog.clear()
    PlaceClient("https://10.1.2.3:8000", token=TOKEN)
    PlaceClient("http://localhost:8000", token=TOKEN)
    assert not caplog.text


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["query", *arguments])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_command_line_prints_the_same_for_a_service_as_for_its_store(
    running: Running, city_store: CityStore, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("no photo")
    photos = [str(path) for path in city_store.queries[:2]] + [str(bad)]
    local = run(capsys, *photos, "--store", city_store.uri, "--top-k", "3")
    remote = run(capsys, *photos, "--url", running.url, "--top-k", "3")

    def without_times(text: str) -> list[str]:
        lines = [line for line in text.splitlines() if not line.endswith(" ms")]
        return [re.sub(r"(\d\.\d{4})\d+", r"\1", line) if "probably" in line else line for line in lines]

    assert local[0] == remote[0] == 3  # one of three rejected
    assert without_times(remote[1]) == without_times(local[1])
    assert len(without_times(local[1])) == 2 * 6 + 2

    code, out, _ = run(capsys, photos[0], "--url", running.url, "--json", "--no-rerank")
    first = json.loads(out)["queries"][0]
    assert code == 0
    assert first["request_id"]
    assert all(match["mutual_matches"] is None for match in first["matches"])


def test_command_line_sends_the_token_from_the_environment(
    city_store: CityStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = str(city_store.queries[0])
    with running_service(city_store.uri, tokens={TOKEN: "read", SCRAPER: "metrics"}) as service:
        code, _, message = run(capsys, photo, "--url", service.url)
        assert code == 2
        assert "PLACERAY_TOKEN" in message
        monkeypatch.setenv("PLACERAY_TOKEN", TOKEN)
        code, shown, _ = run(capsys, photo, "--url", service.url)
        assert code == 0
        assert str(city_store.database[0].parent) not in shown, "no path of the service's machine"
        monkeypatch.setenv("PLACERAY_TOKEN", SCRAPER)
        code, _, message = run(capsys, photo, "--url", service.url)
        assert code == 2
        assert "'read' or 'admin'" in message


def test_command_line_names_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (["--model", "m"], ["--precision", "fp32"], ["--compile"]):
        code, _, message = run(capsys, "x.jpg", "--url", "http://x", *flags)
        assert (code, "--compile go with --store" in message) == (2, True)
    for flags in (["--stop-early"], ["--matching", "exact"], ["--rerank-budget-ms", "5"]):
        code, _, message = run(capsys, "x.jpg", "--url", "http://x", *flags)
        assert (code, "go with --store" in message) == (2, True)
        code, _, message = run(capsys, "x.jpg", "--store", "x", "--no-rerank", *flags)
        assert (code, "nothing to match" in message) == (2, True)
    for budget in ("-1", "nan", "inf", "soon"):
        with pytest.raises(SystemExit) as caught:
            main(["query", "x.jpg", "--store", "x", "--rerank-budget-ms", budget])
        assert caught.value.code == 2
    for url in ("", "http://[::1"):  # the first: of a variable that is not set
        code, _, message = run(capsys, "x.jpg", "--url", url)
        assert code == 2
        assert "not a service's URL" in message
    for arguments in (["x.jpg"], ["x.jpg", "--url", "http://x", "--store", "y"]):
        with pytest.raises(SystemExit) as caught:
            main(["query", *arguments])
        assert caught.value.code == 2
