"""Schemas of requests and responses in the OpenAPI description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

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
    "with_security",
]

IMAGE_TYPES = (
    *("image/jpeg", "image/png", "image/webp", "image/heic", "image/avif"),
    "application/octet-stream",
)


class Error(BaseModel):
    """Reason and message of an error."""

    reason: str
    message: str


class ErrorAnswer(BaseModel):
    """Body of every response but 200."""

    error: Error


class Match(BaseModel):
    """One ranked place."""

    rank: int
    image_id: str
    uri: str = Field(
        description="where the image was indexed from; with a token of the role read below its source only"
    )
    lat: float | None
    lon: float | None
    utm_e: float | None
    utm_n: float | None
    similarity: float
    mutual_matches: int | None
    score: float | None = Field(
        default=None,
        description="what re-ranked places are ordered by, unless the rule of `rerank=auto` blends the "
        "similarity into the order; null where not re-ranked",
    )
    score_kind: Literal["votes", "count"] | None = Field(
        default=None,
        description="`count`: the number of mutual matches; `votes`: of those that agree on a displacement, "
        "weighed by similarity",
    )
    prior_weight: float | None = Field(
        default=None, description="by which a prior multiplied the score; only with one"
    )


class PlacePosition(BaseModel):
    """A position in degrees and in UTM, as far as the store has them."""

    lat: float | None
    lon: float | None
    utm_e: float | None
    utm_n: float | None
    utm_zone: str | None


class PlaceAnswer(BaseModel):
    """Where the photo was taken, made of all candidates.

    Where none of them has a position, `evidence` is empty, `calibrated` false, and all else null.
    """

    position: PlacePosition | None = Field(description="null where no candidate has one, or there is none")
    radius_m: float | None = Field(
        description="holds the truth with 90 %, as measured on the store's own photos or by calibration; "
        "null where neither was measured, and without a position"
    )
    heading_deg: float | None = Field(description="direction of view; null where it is not known")
    probability_right: float | None = Field(
        description="that the first answer is right; null without a valid calibration"
    )
    known: bool | None = Field(
        description="whether the probability suffices for the share of wrong answers that was asked for; "
        "null without a valid calibration, and without a position"
    )
    evidence: list[str] = Field(description="ids of the images that the position was made of")
    spread_m: float | None = Field(
        description="weighted distance of the evidence from the position; null without a position"
    )
    calibrated: bool = Field(description="whether a calibration that fits this query was used")


class CalibrationAnswer(BaseModel):
    """What is to be said about the calibration of a place."""

    exists: bool = Field(default=False, description="whether the store has one")
    valid: bool = Field(description="whether it holds for this answer")
    reason: str | None = Field(description="why there is none that holds, or why nothing is guaranteed")
    max_wrong: float | None = Field(description="at most this share of the answers called known is wrong")
    confidence: float | None = Field(description="with which that holds, over the draw of labelled photos")
    guaranteed: bool = Field(description="whether that is guaranteed for this query")


class QueryAnswer(BaseModel):
    """Ranked places of one photo."""

    request_id: str
    model: str
    store_version: int
    degraded: bool
    reranked: int | None = Field(
        default=None, description="candidates that were matched; only where some may have been left out"
    )
    considered: int | None = Field(
        default=None, description="stored images that the filters left; only with a filter"
    )
    place: PlaceAnswer
    calibration: CalibrationAnswer | None = None
    matches: list[Match]
    timings_ms: dict[str, float]


class LinesAnswer(BaseModel):
    """Matched points: x1, y1 in the photo sent, x2, y2 in the stored image (0..1), cosine similarity.

    `agree` says of each pair whether it is one of those that agree on a displacement; all do where places are
    ranked by the count of matches.
    """

    request_id: str
    store_version: int
    image_id: str
    pairs: list[Annotated[list[float], Field(min_length=5, max_length=5)]]
    agree: list[bool]


class Place(BaseModel):
    """Position of a stored image."""

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
    """Source of street tiles."""

    url: str
    attribution: str


class InfoAnswer(BaseModel):
    """Model, store and limits of the service."""

    request_id: str
    model: str
    store_version: int
    rows: int
    topology: str
    shards: int
    method: str = Field(description="the setting of the search method, which may be `auto`")
    search_method: str | None = Field(
        default=None, description="how the loaded version is searched; null while none is loaded"
    )
    score: str | None = Field(
        default=None, description="what candidates are ranked by, where a setting says it"
    )
    matching: str = Field(default="exact", description="exact or fast")
    stop_early: bool = Field(
        default=False, description="whether candidates are skipped once one is far ahead"
    )
    rerank_budget_ms: float | None = Field(
        default=None, description="milliseconds per query after which candidates are skipped"
    )
    precision: str = Field(default="auto", description="the setting of the model's precision")
    max_body_bytes: int
    candidates: int | None = Field(default=None, description="hits that are re-ranked by default")
    max_candidates: int
    max_top_k: int
    request_timeout_s: float
    tiles: Tiles | None


class Status(BaseModel):
    """Alive, or ready."""

    status: str


_DESCRIPTIONS = {
    400: "The request is malformed.",
    401: "No valid token; send `Authorization: Bearer <token>`.",
    403: "The role of the token does not allow this; the message names the role that does.",
    404: "The store has no such image, or its photo was deleted.",
    408: "The upload took too long.",
    409: "What was asked does not fit the store: `max_wrong` without a calibration, `tag` where the format "
    "has no tags, or answers of another aggregation or of a version that is gone.",
    413: "The body or the image is too large.",
    415: "The encoding or content type of the body is not accepted.",
    422: "A parameter is out of bounds, or the image cannot be used; `reason` says why.",
    431: "The headers, or the address with its parameters, are too long.",
    500: "A bug; look for the request id in the logs.",
    503: "Overloaded, not ready, or the store cannot be read; try again after `Retry-After` seconds.",
}
_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}},
    503: {"Retry-After": {"required": True, "schema": {"type": "integer"}, "description": "seconds"}},
}
IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "description": "The photo (JPEG, PNG, WebP, AVIF or HEIC): body, or multipart field `image`.",
        "content": {
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in IMAGE_TYPES},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "string", "format": "binary"}},
                },
                "encoding": {"image": {"contentType": ", ".join(IMAGE_TYPES)}},
            },
        },
    }
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of a route."""
    return {
        status: {
            "model": ErrorAnswer,
            "description": _DESCRIPTIONS[status],
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        }
        for status in statuses
    }


def with_security(description: dict[str, Any], *, roles: Mapping[str, str | None]) -> dict[str, Any]:
    """Add to an OpenAPI description which paths require a bearer token, and of which role.

    Args:
        description: As FastAPI makes it.
        roles: Role of each path beside `admin`; None for open paths.
    """
    scheme = {
        "type": "http",
        "scheme": "bearer",
        "description": "A token from the operator of the service. Its role is `read` (all of /v1/), "
        "`metrics` (/metrics) or `admin` (everything); each path names the role it needs.",
    }
    description.setdefault("components", {})["securitySchemes"] = {"bearer": scheme}
    description["security"] = [{"bearer": ["admin"]}]
    for path, operations in description["paths"].items():
        role = roles.get(path, "admin")
        for operation in operations.values():
            operation["security"] = [] if role is None else [{"bearer": [role]}]
    return description
