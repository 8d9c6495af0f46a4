"""The queue of photos that are decoded."""

from __future__ import annotations

import asyncio
import io
import threading
from typing import Any

import pytest
from PIL import Image

from models.images import ImageRejected
from serving.errors import QueueFull
from serving.stages import extract
from serving.stages.extract import ExtractWorker


def png(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height)).save(out, "PNG")
    return out.getvalue()


class HeldWorker(ExtractWorker):
    """Decoding waits until `go` is set, then rejects the photo."""

    def __init__(self, **options: Any) -> None:
        class Stub:
            card = None

        super().__init__(Stub(), **options)  # type: ignore[arg-type]
        self.go = threading.Event()

    def _decode(self, image: bytes) -> Any:
        assert self.go.wait(20)
        raise ImageRejected("corrupt", "decoded")


def test_the_queue_is_bounded_by_the_pixels_that_photos_declare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "PIXELS_PER_PHOTO", 10_000)
    large, small = png(200, 200), png(10, 10)

    async def test() -> None:
        worker = HeldWorker(max_queue=10)

        def ask(photo: bytes) -> asyncio.Task[Any]:
            return asyncio.create_task(worker.extract(photo, timeout_s=20))

        held = [ask(large), ask(large)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await worker.extract(large, timeout_s=20)
        held += [ask(small) for _ in range(8)]
        await asyncio.sleep(0)
        assert worker.queued == 10, "small photos find room beside the large ones"
        with pytest.raises(QueueFull):
            await worker.extract(small, timeout_s=20)
        worker.go.set()
        results = await asyncio.gather(*held, return_exceptions=True)
        assert {type(result) for result in results} == {ImageRejected}
        assert worker.queued == 0
        with pytest.raises(ImageRejected):  # the pixels are free again
            await worker.extract(png(400, 400), timeout_s=20)
        await worker.close()

    asyncio.run(test())


def test_a_photo_larger_than_the_queue_is_decoded_where_nothing_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extract, "PIXELS_PER_PHOTO", 1)

    async def test() -> None:
        worker = HeldWorker()
        worker.go.set()
        for _ in range(3):
            with pytest.raises(ImageRejected):
                await worker.extract(png(50, 50), timeout_s=20)
        await worker.close()

    asyncio.run(test())
