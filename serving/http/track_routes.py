"""The route that follows a drive: frames, or earlier answers to them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, Field

from serving.answer import Match
from serving.errors import Refusal, refusal_of
from serving.http.photo_body import read_photos
from serving.http.roles import READ
from serving.http.schema import IMAGE_TYPES, PlacePosition, errors
from serving.query import Rerank
from serving.service import Service
from serving.tracks.defaults import DEFAULT_FPS, DEFAULT_LAG, MAX_LAG
from serving.tracks.errors import BadTrack
from serving.tracks.following import Following, answers_of
from serving.tracks.request import (
    MAX_ANSWERS,
    MAX_PHOTOS,
    TrackRequest,
    inlined_schema,
    motions_of,
    read_request,
)

__all__ = ["add_track"]

_PHOTOS_PER_TIMEOUT = (
    8  # photos of one request get the timeout of one query together, beside one of their own
)
STATUSES = (400, 401, 403, 408, 409, 413, 415, 422, 500, 503)
TRACK_BODY = {
    "requestBody": {
        "required": True,
        "description": f"Answers of `POST /v1/query` to up to {MAX_ANSWERS} frames, best with `top_k` of 20 "
        f"and more; or up to {MAX_PHOTOS} frames as parts `image` of a form, which are answered here.",
        "content": {
            "application/json": {"schema": inlined_schema(TrackRequest)},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": MAX_PHOTOS,
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                },
                "encoding": {"image": {"contentType": ", ".join(IMAGE_TYPES)}},
            },
        },
    }
}


class TrackedFrame(BaseModel):
    """Where one frame was taken."""

    state: str = Field(
        description="`known`: the place is at least as probable as not; `lost`: taken where the store has no "
        "places, with a probability of at least one half; else `unsure`"
    )
    known: bool
    position: PlacePosition | None
    radius_m: float | None = Field(description="holds the truth with 90 %, if the frame was not lost")
    heading_deg: float | None = Field(description="direction of view of the stored images there")
    probability: float = Field(description="that the frame was taken within 25 m of the position")
    lost: float = Field(description="probability that it was taken where the store has no places")
    image_id: str | None = Field(description="the stored image that says most about the place")
    error: dict[str, str] | None = Field(default=None, description="why the photo could not be used")


class TrackSummary(BaseModel):
    """How many frames are in which state."""

    frames: int
    known: int
    lost: int
    unsure: int


class TrackAnswer(BaseModel):
    """Where the frames of a drive were taken, in their order."""

    request_id: str
    model: str
    store_version: int
    lag: int
    summary: TrackSummary
    frames: list[TrackedFrame]


def add_track(app: FastAPI, service: Service, *, usual_candidates: int) -> None:
    """Add the route.

    Args:
        app: Gets it.
        service: Answers photos and has the store.
        usual_candidates: Hits that are re-ranked unless a request says otherwise.
    """
    following = Following(service.gallery)
    limits = service.settings
    most = min(usual_candidates, limits.max_candidates)

    # Not in the annotations, which are resolved where the settings are unknown.
    candidates = Query(
        most, ge=1, le=limits.max_candidates, description="hits of each photo that are re-ranked"
    )
    rerank = Query(True, description="as of `POST /v1/query`, for photos")

    @app.post(
        "/v1/track",
        dependencies=[READ],
        response_model=TrackAnswer,
        responses=errors(*STATUSES),
        openapi_extra=TRACK_BODY,
        summary="Follow a drive: where each of its frames was taken",
    )
    async def track(
        request: Request,
        fps: Annotated[float | None, _number(f"frames per second; default: {DEFAULT_FPS:g}", 1000)] = None,
        speed_m_per_s: Annotated[float | None, _number("of the vehicle, if it is about steady", 200)] = None,
        lag: Annotated[
            int, Query(ge=0, le=MAX_LAG, description="further frames that a position may be corrected by")
        ] = DEFAULT_LAG,
        candidates: int = candidates,
        rerank: Rerank = rerank,
    ) -> Response:
        ask = partial(service.answer, top_k=candidates, candidates=candidates, rerank=rerank)
        try:
            frames, versions, failed, odometry = await _frames(request, ask, limits.request_timeout_s)
            motions = motions_of(len(frames), odometry, fps=fps, speed_m_per_s=speed_m_per_s)
            async with asyncio.timeout(limits.request_timeout_s):
                answer = await following.follow(frames, versions, motions, lag=lag)
        except TimeoutError as error:
            refusal = refusal_of(error)
            assert refusal is not None
            raise refusal from error
        for number, refusal in failed.items():
            answer["frames"][number]["error"] = {"reason": refusal.reason, "message": refusal.message}
        head = {"request_id": request.state.request_id, "model": limits.model_name}
        request.scope["state"].setdefault("log", {}).update(
            store_version=answer["store_version"], frames=len(frames)
        )
        return Response(json.dumps({**head, **answer}, allow_nan=False), media_type="application/json")


def _number(description: str, most: float) -> Any:
    return Query(gt=0, le=most, allow_inf_nan=False, description=description)


async def _frames(
    request: Request, ask: Callable[[bytes], Any], timeout_s: float
) -> tuple[list[list[Match] | None], list[int], dict[int, Refusal], Any]:
    """Return the matches of each frame, the versions that answered, refused photos, and odometry.

    Raises:
        Refusal: the body cannot be used, or the service cannot answer now.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "application/json":
        body = await request.body()
        try:
            asked = await asyncio.to_thread(read_request, body)
            return await asyncio.to_thread(asked.matches), asked.versions, {}, asked.odometry
        except BadTrack as error:
            raise Refusal(422, error.reason, str(error)) from None
    if kind != "multipart/form-data":
        message = "Send frames as multipart/form-data, or earlier answers to them as application/json."
        raise Refusal(415, "unsupported_media_type", message)
    photos = await read_photos(request, at_most=MAX_PHOTOS)
    try:
        async with asyncio.timeout(timeout_s * (1 + len(photos) / _PHOTOS_PER_TIMEOUT)):
            answers = await answers_of(photos, ask)
    except* Refusal as group:
        raise _first(group) from None
    matches = [None if isinstance(answer, Refusal) else list(answer.matches) for answer in answers]
    failed = {number: answer for number, answer in enumerate(answers) if isinstance(answer, Refusal)}
    versions = sorted({answer.store_version for answer in answers if not isinstance(answer, Refusal)})
    return matches, versions, failed, None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group, whatever groups lie within."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
