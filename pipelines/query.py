"""Query a store in this process, or a running service.

placeray query photo.jpg --store ~/city
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from models.images import ImageRejected
from models.images.photo_file import read_bytes
from serving.client import PhotoRefused, PlaceClient

__all__ = ["Ask", "ask_service", "ask_store", "query"]

Ask = Callable[..., dict[str, Any]]


def query(images: Sequence[str], ask: Ask, **options: Any) -> tuple[list[dict[str, Any]], int]:
    """Query with every photo; one that cannot be used does not stop the others.

    Args:
        images: Paths.
        ask: Function that answers one photo, see `ask_store` and `ask_service`.
        options: top_k, candidates and rerank, as of `QueryEngine.answer`.

    Returns:
        One result per photo, with its path as `image` and for an unusable one an `error`; the number of
        unusable photos.

    Raises:
        StoreError: the store cannot be read.
        CannotCompile: compilation was requested and is not possible here.
        ServiceUnavailable, ServiceRefused, BadAnswer: the service cannot be queried.
    """
    answers, rejected = [], 0
    for path in images:
        try:
            answers.append({"image": path, **ask(read_bytes(path), **options)})
        except (ImageRejected, PhotoRefused) as error:
            rejected += 1
            answers.append({"image": path, "error": {"reason": error.reason, "message": str(error)}})
    return answers, rejected


def ask_store(store_uri: str, **options: Any) -> Ask:
    """Open a store in this process; options and errors are those of `QueryEngine.open`."""
    from serving.engine import QueryEngine  # loads torch, which a client of a service does without

    engine = QueryEngine.open(store_uri, **options)
    return lambda image, **options: engine.answer(image, **options).to_dict()


def ask_service(url: str, *, token: str | None) -> Ask:
    """Connect to a running service; errors are those of `PlaceClient`."""
    return PlaceClient(url, token=token).query
