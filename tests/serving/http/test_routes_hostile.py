"""Hostile photos, bodies, forms and models over HTTP; `tests.support.http_client` looks at every answer."""

from __future__ import annotations

import gc
import os
import select
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from models.errors import ModelFault
from models.extractor import Extraction, Prepared
from models.images import ImageRejected, decode_image
from serving.stages.extract import ExtractWorker
from storage.card import Card
from storage.store import Store
from tests.support.city_store import CityStore
from tests.support.http_client import Answer, ask, check_no_leaks, multipart, reason
from tests.support.malformed_multipart import KIND, PART, WAYS, malformed
from tests.support.pictures import broken_files, draw, encode, png_bomb
from tests.support.serve_client import wait_for
from tests.support.service_server import Running, running_service

JPEG = "image/jpeg"
MIB = 1 << 20
PATIENCE_S = 20.0  # only ends a test that hangs


def query(url: str, body: bytes, kind: str = JPEG, **parameters: Any) -> Answer:
    return ask(f"{url}/v1/query", "POST", body=body, kind=kind, **parameters)


def decoders_reason(data: bytes) -> str | None:
    try:
        decode_image(data)
    except ImageRejected as rejected:
        return rejected.reason
    return None


# F17: bodies that are not photos


def test_broken_photos_get_the_decoders_reason(running: Running) -> None:
    for name, (data, expected) in broken_files().items():
        status = 413 if expected == "too_many_pixels" else 422
        for body, kind in ((data, JPEG), (multipart((PART.replace("a.jpg", name), data)), KIND)):
            for path in ("/v1/query", "/v1/matches"):
                place = ask(f"{running.url}/v1/places").json()["places"][0]["image_id"]
                parameters = {"image_id": place} if path == "/v1/matches" else {}
                answer = ask(running.url + path, "POST", body=body, kind=kind, **parameters)
                assert (answer.status, reason(answer)) == (status, expected), name


def test_cut_photos_get_the_decoders_reason(running: Running, city_store: CityStore) -> None:
    photo = city_store.queries[0].read_bytes()
    seen = set()
    for at in np.linspace(0, len(photo) - 3, 50).astype(int):
        answer = query(running.url, photo[:at])
        expected = decoders_reason(photo[:at])
        assert (answer.status, reason(answer)) == (422, expected), f"cut at {at}"
        seen.add(expected)
    assert {"empty", "truncated"} <= seen


def test_the_name_and_type_said_of_a_photo_do_not_matter(running: Running, city_store: CityStore) -> None:
    photo = city_store.queries[0].read_bytes()
    png = encode(draw(1), "PNG")
    for name, data in (("a.txt", photo), ("a.gif", png), ("../../a.exe", photo)):
        part = PART.replace("a.jpg", name) + "\r\nContent-Type: image/gif"
        assert query(running.url, multipart((part, data)), KIND).status == 200
    for data in (b"plain text", b"%PDF-1.7", b"GIF89a" + bytes(64)):
        answer = query(running.url, multipart((PART, data)), KIND)
        assert (answer.status, reason(answer)) == (422, decoders_reason(data))


# F18: what would grow


def peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def forget_peak() -> float:
    """Make the kernel forget the peak of this process's memory; return what it holds now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("the peak of the memory cannot be reset here")
    return peak_mib()


def test_photos_of_very_many_pixels_are_refused_before_they_are_decoded(running: Running) -> None:
    strip = encode(Image.new("1", (1, 60_000)), "PNG")
    long_strip = png_bomb(8 * 60_000, 8)
    bombs = [(png_bomb(), 413, "too_many_pixels"), (png_bomb(20_000, 20_000), 413, "too_many_pixels")]
    bombs += [(strip, 422, "bad_aspect"), (long_strip, 422, "bad_aspect")]
    assert max(len(bomb[0]) for bomb in bombs) < 100_000
    gc.collect()
    before = forget_peak()
    for data, status, expected in bombs:
        for body, kind in ((data, "image/png"), (multipart((PART, data)), KIND)):
            answer = query(running.url, body, kind)
            assert (answer.status, reason(answer)) == (status, expected)
    assert peak_mib() - before < 50


# F22: a model that fails


class FailingExtractor:
    """Gives unit vectors, unless set to fail."""

    precision = "fp32"

    def __init__(self, card: Card) -> None:
        self.card = card
        self.fault = ""

    def prepared_extraction(self, batch: list[Prepared]) -> Extraction:
        card, fault, n = self.card, self.fault, len(batch)
        width = card.descriptor_dim + (1 if fault == "wide" else 0)
        descriptors = np.full((n, width), width**-0.5, np.float32)
        grid = (card.grid_height, card.grid_width + (fault == "grid"), card.feature_dim)
        features = np.full((n, *grid), card.feature_dim**-0.5, np.float32)
        if fault in ("nan", "inf"):
            descriptors[:, 3] = float(fault)
        if fault == "zero":
            descriptors[:] = 0
        if fault == "long":
            descriptors *= 2
        if fault == "nan features":
            features[:, 0, 0, 0] = np.nan
        if fault == "none":
            descriptors, features = descriptors[:0], features[:0]
        if fault == "raised":
            raise ModelFault("secret of /srv/secret")
        return Extraction(descriptors, features, None)


def test_a_model_whose_output_cannot_be_compared_is_a_model_fault(
    city_store: CityStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = FailingExtractor(Store.open(city_store.uri).card)
    worker = "tests.support.service_server.open_extract_worker"
    monkeypatch.setattr(worker, lambda settings: ExtractWorker(stub))  # type: ignore[arg-type]
    photo = city_store.queries[0].read_bytes()
    faults = ("nan", "inf", "zero", "long", "wide", "grid", "nan features", "none", "raised")
    with running_service(city_store.uri) as service:
        place = ask(f"{service.url}/v1/places").json()["places"][0]["image_id"]
        for fault in faults:
            stub.fault = fault
            for answer in (
                query(service.url, photo),
                query(service.url, photo, rerank="false"),
                ask(f"{service.url}/v1/matches", "POST", body=photo, kind=JPEG, image_id=place),
            ):
                assert (answer.status, reason(answer)) == (503, "model_fault"), fault
        stub.fault = ""
        assert query(service.url, photo).status == 200
        counted = f'placeray_errors_total{{reason="model_fault",replica="test"}} {3 * len(faults)}.0'
        assert counted in ask(f"{service.url}/metrics").body.decode()


# F25: bodies that are too large, or of another type than announced


@pytest.fixture(scope="module")
def hasty(city_store: CityStore) -> Iterator[Running]:
    """A service that waits for a body half a second only, and takes 2 MiB."""
    with running_service(city_store.uri, receive_timeout_s=0.5, max_body_mib=2) as service:
        yield service


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), PATIENCE_S)


def head(*headers: str, target: str = "/v1/query") -> bytes:
    return "\r\n".join(
        [f"POST {target} HTTP/1.1", "Host: localhost", f"Content-Type: {JPEG}", *headers, "", ""]
    ).encode()


def read_answer(client: socket.socket) -> Answer:
    """The one answer on a connection that the server closes."""
    received = b""
    with suppress(ConnectionResetError):
        while piece := client.recv(65536):
            received += piece
    lines, _, body = received.partition(b"\r\n\r\n")
    status, *headers = lines.decode().split("\r\n")
    named = {name.lower(): value for name, value in (header.split(": ", 1) for header in headers)}
    answer = Answer(int(status.split()[1]), named, body)
    check_no_leaks(answer)
    return answer


@pytest.mark.parametrize("chunked", [False, True])
def test_100_mib_are_refused_after_little_of_them(
    hasty: Running, city_store: CityStore, chunked: bool
) -> None:
    photo, piece, sent = city_store.queries[0].read_bytes(), b"x" * 65536, 0
    framed = b"10000\r\n" + piece + b"\r\n" if chunked else piece
    assert query(hasty.url, photo).status == 200  # a first answer loads what later ones use
    gc.collect()
    before = forget_peak()
    with connect(hasty.url) as client:
        client.sendall(head("Transfer-Encoding: chunked" if chunked else f"Content-Length: {100 * MIB}"))
        with suppress(ConnectionError):
            while sent < 100 * MIB and not select.select([client], [], [], 0)[0]:
                client.sendall(framed)
                sent += len(piece)
        grown = peak_mib() - before
        assert query(hasty.url, photo).status == 200, "other requests are answered at the same time"
        answer = read_answer(client)
    assert (answer.status, reason(answer)) == (413, "body_too_large")
    assert sent < 20 * MIB, "what the guard reads and what the sockets hold"
    assert grown < 50


@pytest.mark.parametrize(
    ("headers", "sent", "status", "expected"),
    [
        (["Content-Length: 90"], b"abc", 408, "receive_timeout"),
        (["Transfer-Encoding: chunked"], b"3\r\nabc\r\n", 408, "receive_timeout"),
        ([f"Content-Length: {2 * MIB + 1}"], b"", 413, "body_too_large"),
        (["Content-Length: 3", "Content-Encoding: gzip"], b"abc", 415, "unsupported_encoding"),
        (["Content-Length: 3"], b"abc", 422, "not_an_image"),
        (["Content-Length: 0"], b"", 422, "empty"),
    ],
)
def test_lengths_that_lie_get_an_answer(
    hasty: Running, headers: list[str], sent: bytes, status: int, expected: str
) -> None:
    with connect(hasty.url) as client:
        client.sendall(head(*headers, "Connection: close") + sent)
        answer = read_answer(client)
    assert (answer.status, reason(answer)) == (status, expected)


def test_a_body_longer_than_said_is_no_part_of_the_photo(hasty: Running, city_store: CityStore) -> None:
    photo = city_store.queries[0].read_bytes()
    with connect(hasty.url) as client:
        client.sendall(head(f"Content-Length: {len(photo)}", "Connection: close") + photo + b"GET /metrics")
        assert read_answer(client).status == 200


# F26: forms


@pytest.fixture
def watched_temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files would be made: none may be left, nor one that is open without a name."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []
    assert not [target for target in open_files() if str(tmp_path) in target]


def open_files() -> list[str]:
    files = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            files.append(os.readlink(f"/proc/self/fd/{name}"))
    return files


@pytest.mark.parametrize("seed", range(2 * len(WAYS)))
def test_malformed_forms_are_refused(
    running: Running, city_store: CityStore, watched_temp: Path, seed: int
) -> None:
    kind, body = malformed(seed, city_store.queries[0].read_bytes())
    answer = query(running.url, body, kind.encode("latin-1"))  # type: ignore[arg-type]
    way = WAYS[seed % len(WAYS)].__name__
    assert answer.status in (400, 415, 422), f"seed {seed} {way}: {answer}"


def test_forms_of_arbitrary_bytes_are_refused(running: Running, watched_temp: Path) -> None:
    pieces = st.sampled_from([b"--b0undary", b"--", b"\r\n", b"\r", b"\n", PART.encode(), b": ", b";", b'"'])
    junk = st.lists(st.one_of(pieces, st.binary(max_size=40)), max_size=30).map(b"".join)

    @settings(
        max_examples=200,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(junk, st.sampled_from([KIND, KIND + "; charset=x", "multipart/form-data; boundary=-"]))
    def refused(body: bytes, kind: str) -> None:
        answer = query(running.url, body, kind)
        assert answer.status in (400, 415, 422), answer

    refused()


def test_a_large_photo_of_a_form_never_touches_a_disk(
    running: Running, watched_temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a temporary file")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    noise = np.random.default_rng(5).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    photo = encode(Image.fromarray(noise), "PNG")
    assert len(photo) > 6 * MIB
    assert query(running.url, multipart((PART, photo)), KIND).status == 200


# F28: clients that leave


def test_clients_that_leave_amid_their_query_leave_nothing_behind(
    running: Running, city_store: CityStore
) -> None:
    photo = city_store.queries[0].read_bytes()
    request = head(f"Content-Length: {len(photo)}", target="/v1/query?candidates=1&top_k=1") + photo

    def leave(count: int) -> None:
        for _ in range(count):
            with connect(running.url) as client:
                client.sendall(request)

    def at_rest() -> bool:
        lines = ask(f"{running.url}/metrics").body.decode().splitlines()
        flying = [line for line in lines if line.startswith("placeray_queue_length") and "in_flight" in line]
        return len(flying) == 1 and flying[0].endswith(" 0.0")

    leave(8)  # allocate what is allocated once
    wait_for(at_rest, patience_s=PATIENCE_S)
    time.sleep(0.2)
    threads, files = threading.active_count(), len(open_files())
    leave(100)
    wait_for(at_rest, patience_s=PATIENCE_S)
    assert query(running.url, photo).status == 200
    wait_for(lambda: len(open_files()) <= files, patience_s=PATIENCE_S)
    wait_for(lambda: threading.active_count() <= threads, patience_s=PATIENCE_S)
