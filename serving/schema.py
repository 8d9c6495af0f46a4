"""The shapes of requests and answers, as the OpenAPI description shows them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

__all__ = [
    "IMAGE_BODY",
    "IMAGE_TYPES",
    "ErrorAnswer",
    "InfoAnswer",
    "LinesAnswer",
    "PlacesAnswer",
    "QueryAnswer",
    "Status",
    "errors",
]

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "application/octet-stream")


class Error(BaseModel):
    """What went wrong."""

    reason: str
    message: str


class ErrorAnswer(BaseModel):
    """Every answer but 200."""

    error: Error


class Match(BaseModel):
    """One ranked place."""

    rank: int
    image_id: str
    uri: str
    lat: float | None
    lon: float | None
    utm_e: float | None
    utm_n: float | None
    similarity: float
    mutual_matches: int | None


class QueryAnswer(BaseModel):
    """Ranked places of one photo."""

    request_id: str
    model: str
    store_version: int
    degraded: bool
    matches: list[Match]
    timings_ms: dict[str, float]


class LinesAnswer(BaseModel):
    """Matched points: x1, y1 in the photo sent, x2, y2 in the stored image (0..1), cosine similarity."""

    request_id: str
    store_version: int
    image_id: str
    pairs: list[tuple[float, float, float, float, float]]


class Place(BaseModel):
    """Where a stored image was taken."""

    image_id: str
    lat: float | None
    lon: float | None
    utm_e: float | None
    utm_n: float | None
    utm_zone: str | None


class PlacesAnswer(BaseModel):
    """An even sample of the stored images."""

    request_id: str
    store_version: int
    total: int
    places: list[Place]


class Tiles(BaseModel):
    """Where street tiles come from."""

    url: str
    attribution: str


class InfoAnswer(BaseModel):
    """What the service is."""

    request_id: str
    model: str
    store_version: int
    rows: int
    topology: str
    shards: int
    method: str
    max_body_bytes: int
    max_candidates: int
    max_top_k: int
    request_timeout_s: float
    tiles: Tiles | None


class Status(BaseModel):
    """Alive, or ready."""

    status: str


_SAID = {
    400: "The request is malformed.",
    401: "No valid token; send `Authorization: Bearer <token>`.",
    404: "The store holds no such image, or its photo has gone.",
    408: "The body did not come in time.",
    413: "The body or the image is too large.",
    415: "The body has an encoding or content type that is not taken.",
    422: "A parameter is out of bounds, or the image cannot be used; `reason` says why.",
    500: "A bug; the request id names it in the logs.",
    503: "Overloaded, not ready, or the store cannot be read; come again after `Retry-After` seconds.",
}
IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "description": "The photo as JPEG, PNG or WebP: as the body, or as the multipart field `image`.",
        "content": {
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in IMAGE_TYPES},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors that a route can give."""
    retry = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    return {
        status: {
            "model": ErrorAnswer,
            "description": _SAID[status],
            **({"headers": retry} if status == 503 else {}),
        }
        for status in statuses
    }
