"""Photos of a batch, wherever they lie: in their order, read in parallel, each with its own reason."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

import pyarrow as pa
import pytest

from models.images import ImageRejected
from models.weights import load_card
from pipelines.indexing import reading
from pipelines.indexing.collisions import require_same_photos
from pipelines.indexing.decode import decode
from pipelines.indexing.errors import IdsTaken
from pipelines.indexing.known import OTHER, UNSEEN
from pipelines.indexing.reading import READ_AT_ONCE, read_ahead
from storage.objects import source_bucket
from tests.pipelines.indexing.test_stages import WORK_SCHEMA
from tests.support.bucket_photos import put_objects
from tests.support.fault_proxy import FaultProxy
from tests.support.object_servers import SECRET
from tests.support.pictures import write_photos


def test_photos_elsewhere_are_read_by_threads_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(READ_AT_ONCE, timeout=20)

    def read(uri: str, options: object, max_bytes: int) -> bytes:
        together.wait()
        return uri.encode()

    monkeypatch.setattr(
        reading, "read_bytes", lambda uri, options, *, max_bytes: read(uri, options, max_bytes)
    )
    uris = [f"s3://bucket/{at}.jpg" for at in range(3 * READ_AT_ONCE)]
    assert list(read_ahead(uris)) == [uri.encode() for uri in uris]


def test_large_photos_are_read_when_it_is_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []

    def read(uri: str, options: object, *, max_bytes: int) -> bytes:
        limits.append(max_bytes)
        if "large" in uri and max_bytes <= reading.AHEAD_BYTES:
            raise ImageRejected("too_large", "")
        return uri.encode()

    monkeypatch.setattr(reading, "read_bytes", read)
    uris = ["s3://bucket/a.jpg", None, "/local/b.jpg", "s3://bucket/large.jpg"]
    assert list(read_ahead(uris)) == [None if uri is None else uri.encode() for uri in uris]
    assert sorted(limits) == sorted([reading.AHEAD_BYTES] * 2 + [reading.MAX_BYTES] * 2)


def test_each_photo_of_a_bucket_has_its_own_reason(
    faulty: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backoff = source_bucket.RETRIES["backoff"]
    quick = {name: value / 100 if name != "base" else value for name, value in backoff.items()}
    monkeypatch.setitem(source_bucket.RETRIES, "backoff", quick)
    folder = uuid.uuid4().hex
    (path, other) = write_photos(tmp_path, 2)
    names = ["good", "slow", "forbidden", "cut", "text"]
    put_objects(faulty.url, {f"{folder}/{name}.jpg": path.read_bytes() for name in names[:4]})
    put_objects(faulty.url, {f"{folder}/text.jpg": b"no image"})
    faulty.clear()
    faulty.fail("503", method="GET", path="slow.jpg")
    faulty.fail("403", method="GET", path="forbidden.jpg")
    faulty.fail("truncate", method="GET", path="cut.jpg")
    uris = [f"s3://placeray/{folder}/{name}.jpg" for name in (*names, "none")] + [str(other)]
    rows = [{"image_id": uri, "uri": uri, "amend": False} for uri in uris]
    options = {"endpoint": faulty.url, "timeout_s": "4"}
    batch = pa.Table.from_pylist(rows, schema=WORK_SCHEMA)
    card = load_card("efficientnet-lite0").to_json()
    decoded = decode(batch, card=card, source_options=options).to_pylist()
    assert [row["image_id"] for row in decoded] == uris
    assert [row["rejected"] for row in decoded] == [
        *(None, "throttled", "forbidden", "truncated", "not_an_image", "missing", None)
    ]
    assert [row["pixels"] is not None for row in decoded] == [row["rejected"] is None for row in decoded]
    assert SECRET not in str([row["message"] for row in decoded])


def test_an_id_in_use_is_refused_while_the_other_photo_is_in_its_bucket(
    moto_url: str, credentials: None, tmp_path: Path
) -> None:
    folder, options = uuid.uuid4().hex, {"endpoint": moto_url}
    one, two = (path.read_bytes() for path in write_photos(tmp_path, 2))
    put_objects(moto_url, {f"{folder}/new.jpg": one, f"{folder}/old.jpg": two})
    stored = [f"s3://placeray/{folder}/{name}.jpg" for name in ("old", "gone")]
    rows = [
        {
            "image_id": uri,
            "uri": f"s3://placeray/{folder}/new.jpg",
            "stored_uri": uri,
            "stored_sha256": "0",
            "amend": False,
        }
        for uri in stored
    ]
    batch = pa.Table.from_pylist(rows, schema=WORK_SCHEMA)
    owned = batch.append_column("owner", pa.array([OTHER, OTHER]))
    card = load_card("efficientnet-lite0").to_json()
    decoded = decode(owned, card=card, source_options=options).to_pylist()
    assert [row["rejected"] for row in decoded] == ["id_taken", None]
    unseen = batch.append_column("owner", pa.array([UNSEEN, UNSEEN])).append_column(
        "stored_source", pa.array(["s3://placeray/other"] * 2)
    )
    with pytest.raises(IdsTaken):
        require_same_photos(unseen, options)
