"""A fake API behind the page: requests to /v1/* get canned responses."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image
from playwright.sync_api import Page, Route

__all__ = ["CannedService", "drawn_photo"]

PLACES = 6


def drawn_photo(width: int = 64, height: int = 48, *, orientation: int = 1) -> bytes:
    """A JPEG of two colours, with an EXIF orientation."""
    image = Image.new("RGB", (width, height), (40, 90, 160))
    image.paste((220, 180, 60), (0, 0, width // 2, height // 2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif)
    return out.getvalue()


def _place(number: int, kind: str) -> dict[str, Any]:
    degrees, metres = kind == "degrees", kind in ("degrees", "metres")
    return {
        "image_id": f"street/{number:03}.jpg",
        "lat": 48.2 + 0.0004 * number if degrees else None,
        "lon": 16.36 + 0.0003 * number if degrees else None,
        "utm_e": 601_000.0 + 22 * number if metres else None,
        "utm_n": 5_339_000.0 + 44 * number if metres else None,
        "utm_zone": "33U" if degrees else None,
    }


@dataclass
class CannedService:
    """Fake `/v1/*`; the service still serves the page's files.

    Attributes:
        kind: Positions of the store: degrees, metres or none.
        token: Required bearer token, or None.
        refusals: Answers to the first queries: status, reason, headers.
        info: Replaces fields of `/v1/info`.
        answer: Replaces fields of the answer.
        image_ids: Replace the ids of the first places.
        received: Path, query and size of the body of each request.
    """

    kind: str = "degrees"
    token: str | None = None
    refusals: list[tuple[int, str, dict[str, str]]] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)
    image_ids: list[str] = field(default_factory=list)
    received: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def install(self, page: Page) -> CannedService:
        """Answer the page's requests from now on."""
        page.route(lambda url: urlsplit(url).path.startswith("/v1/"), self._route)
        return self

    def queries(self) -> list[bytes]:
        """The bodies of the queries received."""
        return [body for path, _, body in self.received if path == "/v1/query"]

    def places(self) -> list[dict[str, Any]]:
        """The places of the store."""
        places = [_place(number, self.kind) for number in range(PLACES)]
        for place, image_id in zip(places, self.image_ids, strict=False):
            place["image_id"] = image_id
        return places

    def pairs(self, count: int = 30) -> list[list[float]]:
        """Matched points on a diagonal, similarities from 0.60 up."""
        return [[i / count, i / count, i / count, 1 - i / count, 0.6 + 0.01 * i] for i in range(count)]

    def _route(self, route: Route) -> None:
        request = route.request
        parts = urlsplit(request.url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.received.append((parts.path, query, request.post_data_buffer or b""))
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            self._refuse(route, 401, "unauthorized", {})
            return
        if parts.path == "/v1/query" and self.refusals:
            self._refuse(route, *self.refusals.pop(0))
            return
        if parts.path == "/v1/image":
            route.fulfill(body=drawn_photo(), content_type="image/jpeg")
            return
        answers: dict[str, Callable[[], dict[str, Any]]] = {
            "/v1/info": self._info,
            "/v1/places": lambda: {"store_version": 7, "total": PLACES, "places": self.places()},
            "/v1/query": self._answer,
            "/v1/track": lambda: self._track(json.loads(request.post_data_buffer or b"{}")),
            "/v1/matches": lambda: {
                "store_version": 7,
                "pairs": self.pairs(),
                "agree": [True] * len(self.pairs()),
                **query,
            },
        }
        self._send(route, 200, {"request_id": "canned", **answers[parts.path]()})

    def _info(self) -> dict[str, Any]:
        shape = {"topology": "compact", "shards": 1, "method": "exact", "max_body_bytes": 16 << 20}
        return {
            "model": "canned",
            "store_version": 7,
            "rows": PLACES,
            "tiles": None,
            **shape,
            **self.info,
        }

    def _answer(self) -> dict[str, Any]:
        matches = [
            {**place, "rank": i + 1, "uri": "", "similarity": 0.9 - 0.05 * i, "mutual_matches": 30 - 4 * i}
            for i, place in enumerate(self.places()[:5])
        ]
        stages = {"decode": 1.0, "extract": 50.0, "search": 4.0, "fetch": 10.0, "rerank": 25.0, "total": 92.5}
        head = {"model": "canned", "store_version": 7, "degraded": False}
        return {**head, "matches": matches, "timings_ms": stages, **self.answer}

    def _track(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The frames along the store's places: the last but one is lost, the third unsure."""
        places, frames = self.places(), []
        for number in range(len(asked["frames"])):
            state = {len(asked["frames"]) - 2: "lost", 2: "unsure"}.get(number, "known")
            frames.append(
                {
                    "state": state,
                    "known": state == "known",
                    "position": None if state == "lost" else places[number % len(places)],
                    "radius_m": None if state == "lost" else 12.0,
                    "heading_deg": None,
                    "probability": 0.9 if state == "known" else 0.3,
                    "lost": 0.8 if state == "lost" else 0.1,
                    "image_id": None,
                }
            )
        counts = {
            name: sum(frame["state"] == name for frame in frames) for name in ("known", "lost", "unsure")
        }
        return {"store_version": 7, "lag": 10, "summary": {"frames": len(frames), **counts}, "frames": frames}

    def _refuse(self, route: Route, status: int, reason: str, headers: dict[str, str]) -> None:
        body = {"error": {"reason": reason, "message": f"The message of {reason}."}}
        self._send(route, status, body, headers)

    def _send(self, route: Route, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        all_headers = {"x-request-id": "canned", **(headers or {})}
        route.fulfill(
            status=status, body=json.dumps(body), headers=all_headers, content_type="application/json"
        )
