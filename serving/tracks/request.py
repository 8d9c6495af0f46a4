"""What a client sends to follow a drive from earlier answers: validated, bounded, nothing trusted."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from serving.answer import Match, PlaceRecord
from serving.tracks.defaults import DEFAULT_FPS
from serving.tracks.errors import BadTrack
from serving.tracks.motion import Motion, at_rate, at_speed
from storage.position import Position

__all__ = ["MAX_ANSWERS", "MAX_PHOTOS", "TrackRequest", "inlined_schema", "motions_of", "read_request"]

MAX_ANSWERS = 1_000  # frames of one request
MAX_PHOTOS = 100  # frames of one request that are photos
MAX_MATCHES = 1_000  # of one frame
_MAX_ALL = 100_000  # matches of one request


def _whole(value: Any) -> Any:
    """Return 3.0, which is a whole number in JSON, as 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class AskedMatch(BaseModel):
    """One of the `matches` of an earlier answer; other keys of it are ignored."""

    model_config = ConfigDict(strict=True)

    image_id: str = Field(min_length=1, max_length=1024)
    similarity: Annotated[float, Field(allow_inf_nan=False, ge=-1.001, le=1.001)]
    mutual_matches: Annotated[int, Field(ge=0, le=10**9), BeforeValidator(_whole)] | None = None
    score: Annotated[float, Field(allow_inf_nan=False, ge=-1e9, le=1e9)] | None = None
    score_kind: Literal["votes", "count"] | None = None

    def match(self, rank: int) -> Match:
        """Return the match at a rank."""
        record = PlaceRecord(self.image_id, "", Position())  # where it is, the store knows
        kind = self.score_kind if self.score is not None else None
        return Match(rank, record, self.similarity, self.mutual_matches, self.score, kind)


class AskedFrame(BaseModel):
    """An earlier answer of `POST /v1/query`; other keys of it are ignored."""

    model_config = ConfigDict(strict=True)

    store_version: Annotated[int, Field(ge=1, le=2**48 - 1), BeforeValidator(_whole)]
    matches: list[AskedMatch] = Field(max_length=MAX_MATCHES, description="best first, as they were ranked")


class AskedMotion(BaseModel):
    """What is known about the way from the frame before."""

    model_config = ConfigDict(strict=True)

    distance_m: Annotated[float, Field(allow_inf_nan=False, ge=0, le=1e5)] | None = None
    turn_deg: Annotated[float, Field(allow_inf_nan=False, ge=-3600, le=3600)] | None = Field(
        default=None, description="to the right"
    )


class TrackRequest(BaseModel):
    """Earlier answers to the frames of a drive, in their order."""

    model_config = ConfigDict(strict=True)

    frames: list[AskedFrame | None] = Field(
        min_length=1, max_length=MAX_ANSWERS, description="null for a frame without an answer"
    )
    odometry: list[AskedMotion | None] | None = Field(
        default=None, max_length=MAX_ANSWERS, description="one per frame; that of the first is not used"
    )

    def matches(self) -> list[list[Match] | None]:
        """Return the ranked matches of each frame."""
        return [
            None if frame is None else [match.match(rank) for rank, match in enumerate(frame.matches, 1)]
            for frame in self.frames
        ]

    @property
    def versions(self) -> list[int]:
        """The store versions that answered, rising."""
        return sorted({frame.store_version for frame in self.frames if frame is not None})


def read_request(body: bytes) -> TrackRequest:
    """Read a request.

    Raises:
        BadTrack: it is none; the message names the first field that is wrong.
    """
    try:
        request = TrackRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])[:120]
        raise BadTrack(f"field {where!r}: {first['msg']}; see /openapi.json") from None
    if sum(len(frame.matches) for frame in request.frames if frame is not None) > _MAX_ALL:
        raise BadTrack(f"the frames have more than {_MAX_ALL} matches together: send fewer of each")
    if request.odometry is not None and len(request.odometry) != len(request.frames):
        raise BadTrack(
            f"{len(request.odometry)} values of odometry for {len(request.frames)} frames: send one per frame"
        )
    return request


def motions_of(
    frames: int,
    odometry: list[AskedMotion | None] | None,
    *,
    fps: float | None,
    speed_m_per_s: float | None,
) -> list[Motion]:
    """Return what is known about the way to each frame.

    Args:
        frames: How many there are.
        odometry: One value per frame.
        fps: Frames per second; default: 1.
        speed_m_per_s: Of the vehicle.
    """
    rate = fps or DEFAULT_FPS
    usual = at_rate(frames, rate) if speed_m_per_s is None else at_speed(frames, speed_m_per_s, rate)
    if odometry is None:
        return usual
    return [
        motion
        if asked is None
        else Motion(
            motion.distance_m if asked.distance_m is None else asked.distance_m,
            asked.turn_deg,
            motion.usual_m,
            motion.fastest_m,
        )
        for motion, asked in zip(usual, odometry, strict=True)
    ]


def inlined_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a model without references, for a place that has no components."""
    schema = model.model_json_schema()
    parts: dict[str, Any] = schema.pop("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return inlined(parts[value["$ref"].rsplit("/", 1)[-1]])
            return {key: inlined(each) for key, each in value.items()}
        return [inlined(each) for each in value] if isinstance(value, list) else value

    return dict(inlined(schema))
