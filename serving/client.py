"""A client of the service: sends photos and returns ranked places."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from models.images import ImageRejected
from models.images.photo import Photo
from models.images.photo_encoding import encode_photo
from serving.answer import QueryResult, unknown_place
from serving.defaults import LEARNED_CANDIDATES, TOP_K
from serving.http.schema import QueryAnswer
from serving.priors.parameters import parameters_of
from serving.priors.soft_prior import SoftPrior
from serving.query import Rerank
from serving.transport import BadAnswer, PhotoRefused, ServiceRefused, ServiceUnavailable, Transport
from storage.search.row_filter import RowFilter

__all__ = ["BadAnswer", "PhotoRefused", "PlaceClient", "ServiceRefused", "ServiceUnavailable"]


class PlaceClient:
    """Client of one service. A query changes nothing, so it is retried where no replica could take it.

    Args:
        url: Of the service, such as `http://127.0.0.1:8000`.
        token: Bearer token; sent to this URL's host only, redirects are not followed. A warning is logged
            where it would travel unencrypted beyond this machine.
        timeout_s: Read timeout of one attempt.
        patience_s: Longest time for one photo with all retries.
        sleep: Waits between retries.
        clock: Seconds.

    Raises:
        ServiceRefused: the URL or the token cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_s: float = 60.0,
        patience_s: float = 120.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = Transport(
            url, token=token, timeout_s=timeout_s, patience_s=patience_s, sleep=sleep, clock=clock
        )

    def answer(
        self,
        photo: Photo,
        *,
        top_k: int = TOP_K,
        candidates: int | None = None,
        rerank: Rerank = True,
        max_wrong: float | None = None,
        within: RowFilter | None = None,
        prior: SoftPrior | None = None,
    ) -> QueryResult:
        """Rank the places where a photo may have been taken; the same class as of `QueryEngine.answer`.

        Args:
            photo: The bytes or the path of a JPEG, PNG or WebP, a PIL image, or upright (H, W, 3) uint8 RGB.
                Images and arrays are sent as PNG, without loss.
            top_k: Number of places to return.
            candidates: Number of search hits that are re-ranked; default: the service's.
            rerank: False keeps the order of the global descriptors; `auto` follows the calibration.
            max_wrong: Largest share of wrong answers among those called known; by default that of the
                calibration.
            within: Which stored images may be found, see `storage.search.filters`; default: all.
            prior: Where the photo was probably taken; what lies near ranks better.

        Raises:
            BadFilter: the filter is not one that a request can carry.
            ImageRejected: the file cannot be read, or the pixels are not those of a photo.
            PhotoRefused: the photo or a parameter cannot be used.
            ServiceUnavailable, ServiceRefused, BadAnswer: see each.
        """
        answer = self.query(
            encode_photo(photo),
            top_k=top_k,
            candidates=candidates,
            rerank=rerank,
            max_wrong=max_wrong,
            within=within,
            prior=prior,
        )
        return QueryResult.from_dict(answer)

    def query(
        self,
        image: bytes,
        *,
        top_k: int = TOP_K,
        candidates: int | None = None,
        rerank: Rerank = True,
        max_wrong: float | None = None,
        within: RowFilter | None = None,
        prior: SoftPrior | None = None,
    ) -> dict[str, Any]:
        """Rank the places where a photo may have been taken.

        Args:
            image: An encoded JPEG, PNG or WebP.
            top_k: Number of places to return.
            candidates: Number of search hits that are re-ranked; default: the service's.
            rerank: False keeps the order of the global descriptors; `auto` follows the calibration.
            max_wrong: See `answer`.
            within: See `answer`.
            prior: See `answer`.

        Returns:
            The service's answer, see `POST /v1/query`.

        Raises:
            BadFilter: the filter is not one that a request can carry.
            PhotoRefused: the photo or a parameter cannot be used.
            ServiceUnavailable, ServiceRefused, BadAnswer: see each.
        """
        parameters: dict[str, Any] = {"top_k": top_k, "rerank": str(rerank).lower()}
        given = {"candidates": candidates, "max_wrong": max_wrong}
        parameters |= {name: value for name, value in given.items() if value is not None}
        parameters |= parameters_of(within, prior)
        answer = self._transport.send("POST", "/v1/query", parameters, image)
        if answer.get("place") is None:  # of a service before version 0.2
            answer["place"] = unknown_place()
        try:
            QueryAnswer.model_validate(answer, strict=True)
        except ValidationError as error:
            field = ".".join(str(part) for part in error.errors()[0]["loc"])
            message = (
                f"{self._transport.url} answered with an unexpected {field[:80]!r}; is this placeray's URL?"
            )
            raise BadAnswer(message) from None
        return answer

    def track(
        self,
        photos: Iterable[Photo],
        *,
        fps: float | None = None,
        speed_m_per_s: float | None = None,
        odometry: Sequence[Mapping[str, float | None] | None] | None = None,
        lag: int | None = None,
        candidates: int | None = None,
        rerank: Rerank = True,
    ) -> dict[str, Any]:
        """Follow a drive: each frame is queried, then all answers are sent together.

        Args:
            photos: The frames in their order, each as of `answer`; at most 1,000.
            fps: Frames per second; default: 1.
            speed_m_per_s: Of the vehicle, if it is about steady.
            odometry: One value per frame with `distance_m` and `turn_deg` since the frame before, or None.
            lag: How many further frames each position knows; default: 10.
            candidates: As of `answer`.
            rerank: As of `answer`.

        Returns:
            The service's answer, see `POST /v1/track`; a frame that cannot be used has its `error`.

        Raises:
            PhotoRefused: the answers were refused, such as those of another aggregation.
            ServiceUnavailable, ServiceRefused, BadAnswer: see each.
        """
        frames: list[dict[str, Any] | None] = []
        failed: dict[int, dict[str, str]] = {}
        top_k = min(candidates or LEARNED_CANDIDATES, int(self.info().get("max_top_k") or TOP_K))
        for number, photo in enumerate(photos):
            try:
                image = encode_photo(photo)
                answer = self.query(image, top_k=top_k, candidates=candidates, rerank=rerank)
                frames.append({name: answer[name] for name in ("store_version", "matches")})
            except (ImageRejected, PhotoRefused) as error:
                failed[number] = {"reason": error.reason, "message": str(error)}
                frames.append(None)
        given = {"fps": fps, "speed_m_per_s": speed_m_per_s, "lag": lag}
        parameters = {name: value for name, value in given.items() if value is not None}
        body = {"frames": frames} | ({} if odometry is None else {"odometry": list(odometry)})
        track = self._transport.send(
            "POST", "/v1/track", parameters, json.dumps(body).encode(), content_type="application/json"
        )
        tracked = track.get("frames")
        if not isinstance(tracked, list) or len(tracked) != len(frames):
            raise BadAnswer(
                f"{self._transport.url} answered with an unexpected 'frames'; is this placeray's URL?"
            )
        for number, why in failed.items():
            tracked[number]["error"] = why
        return track

    def info(self) -> dict[str, Any]:
        """Return the service's description of itself, see `GET /v1/info`; errors as of `query`."""
        return self._transport.send("GET", "/v1/info", {}, None)
