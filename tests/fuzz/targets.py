"""What is fuzzed: where its inputs come from, and what must come out of any of them."""

from __future__ import annotations

import csv
import io
import logging
import random
import re
import select
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import PlacerayError
from tests.support.encoded_images import HEIC, encoded, encoded_heic, photo_exif, scene
from tests.support.http_client import TELLTALE, ask, multipart
from tests.support.mutations import mutated

__all__ = ["TARGETS", "Target"]

Check = Callable[[bytes], str]
PATIENCE_S = 60.0  # of wall clock, on a busy machine
UNANSWERED_S = 0.5


@dataclass(frozen=True)
class Target:
    """Inputs to mutate, and `open`, which gives a function from input to outcome.

    What that function raises is a finding. `max_growth_mib` bounds the memory above what the process holds
    after the seeds; `mutate` makes input number N.
    """

    seeds: Callable[[], list[bytes]]
    open: Callable[[Path], Iterator[Check]]
    max_growth_mib: int
    mutate: Callable[[Sequence[bytes], int], bytes] = mutated


def photos() -> list[bytes]:
    """Small photos of all formats, still and animated, with and without EXIF."""
    return [
        encoded(scene(), "JPEG", exif=photo_exif()),
        encoded(scene(), "JPEG", progressive=True),
        encoded(scene().convert("CMYK"), "JPEG"),
        encoded(scene(), "PNG", exif=photo_exif()),
        encoded(scene().quantize(16), "PNG", transparency=bytes(range(0, 160, 10))),
        encoded(scene(), "PNG", save_all=True, append_images=[scene().rotate(90)]),
        encoded(scene(), "WEBP", exif=photo_exif()),
        encoded(scene(), "WEBP", save_all=True, append_images=[scene().rotate(90)]),
        encoded(scene(), "AVIF", exif=photo_exif()),
        *([encoded_heic(scene(), exif=photo_exif().tobytes())] if HEIC else []),
    ]


def decode(folder: Path) -> Iterator[Check]:
    from models.images import ImageRejected, decode_image

    def check(data: bytes) -> str:
        try:
            decoded = decode_image(data, max_pixels=4_000_000)
        except ImageRejected as rejected:
            return rejected.reason
        assert decoded.pixels.shape == (decoded.height, decoded.width, 3)
        return "decoded"

    yield check


def listings() -> list[bytes]:
    """Listings as CSV of two kinds and as Parquet of two kinds."""
    rows = [
        {
            "uri": f"a/{n}.jpg",
            "lat": -33.86 + n / 1e3,
            "lon": 151.2,
            "heading": 90.5,
            "time": "2024-02-29T23:30:00Z",
        }
        for n in range(12)
    ]
    found = []
    for separator in (",", ";"):
        file = io.StringIO()
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
        found.append(file.getvalue().encode())
    for options in ({"compression": "zstd"}, {"compression": None, "use_dictionary": False}):
        file_of_bytes = io.BytesIO()
        table = pa.Table.from_pylist(rows).append_column("tags", pa.array([["x", "y"]] * len(rows)))
        pq.write_table(table, file_of_bytes, **options)
        found.append(file_of_bytes.getvalue())
    return found


def listed(folder: Path) -> Iterator[Check]:
    from pipelines.sources import list_source

    def check(data: bytes) -> str:
        path = folder / ("listing.parquet" if data[:2] == b"PA" or data[-2:] == b"R1" else "listing.csv")
        path.write_bytes(data)
        try:
            table = list_source(path)
        except PlacerayError as error:
            return type(error).__name__
        assert all(table["image_id"].to_pylist())
        return "listed"

    yield check


def weights_files() -> list[bytes]:
    """A weights file of placeray, and a published checkpoint."""
    from tests.support.paths import GOLDEN
    from tests.support.weights_samples import small_weights_file

    return [small_weights_file(), (GOLDEN / "selavpr_small.pth").read_bytes()]


def loaded(folder: Path) -> Iterator[Check]:
    from models.checkpoints.importing import import_checkpoint
    from models.weights import load_extractor

    def check(data: bytes) -> str:
        published = data[:2] == b"PK" or b"data.pkl" in data[:512]
        path = folder / ("weights.pth" if published else "weights.safetensors")
        path.write_bytes(data)
        try:
            if published:
                import_checkpoint(path, folder / "out.safetensors")
            else:
                load_extractor(str(path), device="cpu")
        except PlacerayError as error:
            return str(getattr(error, "reason", type(error).__name__))
        return "loaded"

    yield check


def footers() -> list[bytes]:
    """Parquet files as listings are, plain, of pages of both versions, and of several row groups."""
    table = pa.table({"uri": [f"{n}.jpg" for n in range(40)], "tags": [["x"], None, ["y", "z"], []] * 10})
    found = []
    for options in ({"compression": "none"}, {"data_page_version": "2.0"}, {"row_group_size": 9}):
        file = io.BytesIO()
        pq.write_table(table, file, **options)
        found.append(file.getvalue())
    return found


def decoded_headers(folder: Path) -> Iterator[Check]:
    from storage.parquet_footer import read_row_groups
    from storage.parquet_pages import check_pages, dictionary_entries

    def check(data: bytes) -> str:
        file = io.BytesIO(data)
        try:
            groups = read_row_groups(file)
            for group in groups:
                for chunk in group.columns:
                    dictionary_entries(file, chunk)
                check_pages(file, group, [chunk.path for chunk in group.columns])
        except pa.ArrowInvalid:
            return "refused"
        return "decoded"

    yield check


def photos_to_write() -> list[bytes]:
    """JPEG photos without EXIF, and with EXIF of both byte orders."""
    big_endian = b"Exif\0\0MM\0*" + (8).to_bytes(4, "big") + bytes(6)
    return [
        encoded(scene(), "JPEG"),
        encoded(scene(), "JPEG", exif=photo_exif()),
        encoded(scene(), "JPEG", exif=big_endian),
    ]


def positioned(folder: Path) -> Iterator[Check]:
    from models.images.writing.jpeg_segments import find_exif, with_position
    from models.images.writing.tiff_gps import ExifPosition, NotEmbeddable

    position = ExifPosition(-33.86, 151.2, 8.0)

    def check(data: bytes) -> str:
        try:
            written = with_position(data, position)
        except NotEmbeddable:
            return "not embeddable"
        place = find_exif(written)
        assert place.end > place.begin
        rest = len(written) - place.end
        assert written[: place.begin] + written[place.end :] in (
            data,
            data[: place.begin] + data[len(data) - rest :],
        )
        return "written"

    yield check


def areas() -> list[bytes]:
    """GeoJSON of a polygon with a hole, of several, and of a collection of features."""
    ring = "[[151.1,-33.9],[151.3,-33.9],[151.3,-33.8],[151.1,-33.8],[151.1,-33.9]]"
    hole = "[[151.15,-33.88],[151.2,-33.88],[151.2,-33.85],[151.15,-33.88]]"
    polygon = f'{{"type":"Polygon","coordinates":[{ring},{hole}]}}'
    several = f'{{"type":"MultiPolygon","coordinates":[[{ring}],[{hole}]]}}'
    features = f'{{"type":"FeatureCollection","features":[{{"type":"Feature","geometry":{polygon}}}]}}'
    return [text.encode() for text in (polygon, several, features)]


def bounded(folder: Path) -> Iterator[Check]:
    from storage.position import Position
    from storage.search.filters import BadFilter, inside_geojson
    from tests.storage.search.filters.rows import rows_at

    ways = [(-33.87, 151.12), (-33.86, 151.18), (-33.9, 151.1), (80.0, 179.9), (0.0, -180.0), (-90.0, 0.0)]
    rows = rows_at([Position(lat=lat, lon=lon) for lat, lon in ways])

    def check(data: bytes) -> str:
        try:
            inside = inside_geojson(data.decode(errors="replace"))
        except BadFilter:
            return "refused"
        found = inside.mask(rows).tolist()
        assert found == [inside.mask(rows.slice(n, 1))[0] for n in range(len(ways))]
        assert not re.search("nan|inf", inside.predicate())
        return f"{sum(found)} inside"

    yield check


def raw_requests() -> list[bytes]:
    """Requests as they go over the wire, of each route that takes a body and of some that do not."""
    photo = encoded(scene(), "JPEG")
    form = multipart(('Content-Disposition: form-data; name="image"; filename="a.jpg"', photo))
    kind = "multipart/form-data; boundary=b0undary"
    drive = b'{"frames": [{"t": 0, "matches": []}, {"t": 1.5, "matches": []}]}'
    options = "?candidates=1&top_k=1&near=-33.86,151.2&radius_m=500"
    return [
        _request("POST", "/v1/query?candidates=1&top_k=1", "image/jpeg", photo),
        _request("POST", f"/v1/query{options}", kind, form),
        _request("POST", "/v1/matches?image_id=db%2F0.jpg", kind, form),
        _request("POST", "/v1/track", "application/json", drive),
        _request("GET", "/v1/info", None, b""),
        _request("GET", "/v1/places?limit=3", None, b""),
        _request("GET", "/v1/images/db%2F0.jpg", None, b""),
    ]


def _request(method: str, target: str, kind: str | None, body: bytes) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close", "X-Request-Id: fuzz"]
    lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"] if kind else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def mutated_request(seeds: Sequence[bytes], number: int) -> bytes:
    """Return a request mutated anywhere, in its body alone, whose length is right, or in its target alone."""
    if number % 3 == 0:
        return mutated(seeds, number)
    head, _, body = random.Random(number).choice(seeds).partition(b"\r\n\r\n")
    if number % 3 == 1 and body:
        body = mutated([body], number)
        head = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head)
    else:
        first, _, rest = head.partition(b"\r\n")
        method, target, version = first.split(b" ")
        target = b"/" + re.sub(rb"[^!-~]", lambda byte: b"%%%02x" % byte[0][0], mutated([target[1:]], number))
        head = b" ".join((method, target, version)) + b"\r\n" + rest
    return head + b"\r\n\r\n" + body


def answered(folder: Path) -> Iterator[Check]:
    from tests.support.city_store import make_city_store
    from tests.support.service_server import running_service

    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    with running_service(make_city_store(folder).uri) as running:
        address = urlsplit(running.url)
        threads = threading.active_count()

        def check(data: bytes) -> str:
            reply = _sent(str(address.hostname), int(address.port or 0), data)
            status = re.match(rb"HTTP/1\.1 (\d{3}) ", reply)
            assert status or not reply, reply[:200]
            assert not status or int(status[1]) < 500 or int(status[1]) == 503, reply[:2000]
            if status and int(status[1]) >= 400:
                assert not TELLTALE.search(reply.partition(b"\r\n\r\n")[2].decode("latin-1")), reply[:2000]
            return status[1].decode() if status else "closed"

        yield check
        assert ask(f"{running.url}/readyz").status == 200
        assert threading.active_count() <= threads + 40  # the pools of decoding and matching fill up


def _sent(host: str, port: int, data: bytes) -> bytes:
    """Send bytes and return all that comes back; if nothing does for a while, say that no more follow."""
    reply = b""
    with socket.create_connection((host, port), timeout=PATIENCE_S) as client:
        try:
            client.sendall(data)
            if not select.select([client], [], [], UNANSWERED_S)[0]:
                client.shutdown(socket.SHUT_WR)
            while piece := client.recv(1 << 16):
                reply += piece
        except ConnectionError:  # refused amid the body
            pass
    return reply


TARGETS = {
    "images": Target(photos, decode, 300),
    "listings": Target(listings, listed, 300),
    "weights": Target(weights_files, loaded, 600),
    "footers": Target(footers, decoded_headers, 100),
    "exif": Target(photos_to_write, positioned, 100),
    "areas": Target(areas, bounded, 100),
    "requests": Target(raw_requests, answered, 600, mutated_request),
}
opened = {name: contextmanager(target.open) for name, target in TARGETS.items()}
