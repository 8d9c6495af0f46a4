"""Pictures of stored photos that lie in a bucket: shown by the credentials of the service, or left out."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from pathlib import Path

import pytest

from serving.errors import Refusal
from serving.gallery import Gallery
from storage.store import Store
from tests.support.bucket_photos import put_objects
from tests.support.encoded_images import encoded, scene
from tests.support.store_samples import make_rows, make_store, with_value


def test_a_photo_in_a_bucket_is_shown_where_the_environment_names_its_server(
    moto_url: str, credentials: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, photo = f"{uuid.uuid4().hex}/a b#1.jpg", encoded(scene(), "JPEG")
    put_objects(moto_url, {key: photo, f"{key}.other": b"not the photo"})
    make_store(tmp_path / "store", ["first"])
    store = Store.open(tmp_path / "store")
    uris = {
        "shown": f"s3://placeray/{key.replace('#', '%23')}",
        "changed": f"s3://placeray/{key.replace('#', '%23')}.other",
        "gone": "s3://placeray/none.jpg",
        "foreign": f"s3://placeray/{key.replace('#', '%23')}?endpoint={moto_url}",
    }
    rows = make_rows(store, list(uris))
    for at, uri in enumerate(uris.values()):
        rows = with_value(rows, "uri", at, uri)
        rows = with_value(rows, "sha256", at, hashlib.sha256(photo).hexdigest())
    with store.lease():
        store.commit(rows)
    gallery = Gallery(store, refresh_s=0.0)

    def shown(image_id: str) -> str:
        try:
            jpeg = asyncio.run(gallery.thumbnail(image_id, 32))
        except Refusal as refusal:
            return refusal.reason
        return "shown" if jpeg.startswith(b"\xff\xd8") else "not a JPEG"

    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    assert {image_id: shown(image_id) for image_id in uris} == {
        "shown": "shown",
        "changed": "image_unavailable",
        "gone": "image_unavailable",
        "foreign": "image_unavailable",
    }
