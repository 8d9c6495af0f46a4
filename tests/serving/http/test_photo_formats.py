"""Formats and sizes of the photos that the service takes."""

from __future__ import annotations

import asyncio
import io
import sys

import pytest
from PIL import Image

from models.images import ImageRejected
from models.images import heic as heic_module
from models.weights import load_extractor
from serving.errors import Refusal
from serving.gallery import Gallery
from serving.settings import ServeSettings, read_settings
from serving.stages.extract import ExtractWorker
from storage.errors import PlacerayError
from storage.store import Store
from tests.support.city_store import CityStore
from tests.support.encoded_images import encoded, encoded_heic, needs_heic
from tests.support.http_client import ask, reason
from tests.support.service_server import Running

KINDS = [pytest.param("HEIC", marks=needs_heic), "AVIF"]


@pytest.mark.parametrize("kind", KINDS)
def test_heic_and_avif_find_their_place(running: Running, city_store: CityStore, kind: str) -> None:
    photo = Image.open(io.BytesIO(city_store.queries[0].read_bytes()))
    data = encoded_heic(photo) if kind == "HEIC" else encoded(photo, kind, quality=95)
    jpeg = ask(f"{running.url}/v1/query", "POST", body=encoded(photo, "JPEG", quality=95), kind="image/jpeg")
    answer = ask(f"{running.url}/v1/query", "POST", body=data, kind=f"image/{kind.lower()}")
    assert answer.status == 200
    first, expected = (one.json()["matches"][0]["image_id"] for one in (answer, jpeg))
    assert first == expected


def test_heic_without_the_extra_is_refused_by_name(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif.as_plugin", None)
    monkeypatch.setattr(heic_module, "_plugin", heic_module._plugin.__wrapped__)
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500)
    answer = ask(f"{running.url}/v1/query", "POST", body=data, kind="image/heic")
    assert (answer.status, reason(answer)) == (422, "format_not_allowed")
    assert "placeray[heic]" in answer.body.decode()


def test_the_service_has_a_limit_of_its_own(city_store: CityStore) -> None:
    photo = city_store.queries[0].read_bytes()
    width, height = Image.open(io.BytesIO(photo)).size

    async def extract(max_pixels: int) -> None:
        worker = ExtractWorker(load_extractor("efficientnet-lite0"), max_pixels=max_pixels)
        try:
            await worker.extract(photo)
        finally:
            await worker.close()

    asyncio.run(extract(width * height))
    with pytest.raises(ImageRejected, match="--max-megapixels") as refused:
        asyncio.run(extract(width * height - 1))
    assert refused.value.http_status == 413


def test_the_limit_is_bounded() -> None:
    assert ServeSettings(store="s").max_pixels == 40_000_000
    assert ServeSettings(store="s", max_megapixels=250).max_pixels == 250_000_000
    for megapixels in (0, -1, 251, float("nan"), float("inf")):
        with pytest.raises(PlacerayError, match="max_megapixels"):
            read_settings({"store": "s", "max_megapixels": megapixels})


def test_a_stored_photo_above_the_limit_is_named_as_that(city_store: CityStore) -> None:
    store = Store.open(city_store.uri)
    image_id = store.metadata()["image_id"][0].as_py()
    gallery = Gallery(store, refresh_s=2.0, max_pixels=100)
    with pytest.raises(Refusal, match="--max-megapixels") as refused:
        asyncio.run(gallery.thumbnail(image_id, 64))
    assert refused.value.reason == "image_unavailable"
