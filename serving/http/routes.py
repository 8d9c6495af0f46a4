"""Routes of the service: requests to JSON, with one shape for every error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.routing import APIRoute

from serving.defaults import CANDIDATES
from serving.errors import Refusal
from serving.gallery import MAX_PLACES
from serving.http.error_handlers import add_error_handlers
from serving.http.guard import Guard
from serving.http.page_files import LEAFLET, WEB, PageFiles, page_headers, static_paths
from serving.http.photo_body import read_photo
from serving.http.prior_parameters import Priors, read_priors
from serving.http.roles import METRICS, READ, shown_uri
from serving.http.schema import (
    IMAGE_BODY,
    InfoAnswer,
    LinesAnswer,
    PlacesAnswer,
    QueryAnswer,
    Status,
    errors,
    with_security,
)
from serving.http.tokens import TokenTable
from serving.http.track_routes import add_track
from serving.query import Rerank
from serving.service import Service
from serving.settings import ServeSettings

__all__ = ["build_guarded", "build_routes"]

# No page of another origin may show a stored image, whatever the browser sends along.
STORED_IMAGE = {"cache-control": "private, max-age=300", "cross-origin-resource-policy": "same-origin"}
# Statuses of a route that takes a photo.
PHOTO_ERRORS = (400, 401, 403, 408, 413, 415, 422, 500, 503)
MAX_WRONG = Query(
    gt=0,
    lt=1,
    allow_inf_nan=False,
    description="largest share of wrong answers among those called known; 409 without a calibration, 422 "
    "below the smallest share that it promises",
)
PRIORS = Depends(read_priors)
OPEN_PATHS = ("/", "/healthz", "/readyz", "/openapi.json", "/favicon.ico")


def build_guarded(
    service: Service, *, tokens: Mapping[str, str] | TokenTable | None, behind_serve: bool
) -> Guard:
    """Build the ASGI application: routes behind the guard.

    Args:
        service: Answers the queries.
        tokens: Role of each bearer token; none: no authentication.
        behind_serve: Whether the server is Ray Serve, which echoes the request id of the client.
    """
    settings = service.settings

    def count(path: str, status: int | None, reason: str | None, seconds: float) -> None:
        service.metrics.request(path, status or 499, seconds)  # 499: the client disconnected first
        if reason is not None:
            service.metrics.error(reason)

    def count_refused_ahead(reason: str, count: int) -> None:
        service.metrics.error(reason, count)

    return Guard(
        build_routes(service, closed=bool(tokens)),
        max_body_bytes=settings.max_body_bytes,
        receive_timeout_s=settings.receive_timeout_s,
        tokens=tokens or None,
        open_paths=(*OPEN_PATHS, *static_paths()),
        allowed_hosts=settings.allowed_hosts,
        server_echoes_request_id=behind_serve,
        on_request=count,
        on_refused_ahead=count_refused_ahead,
    )


def build_routes(service: Service, *, closed: bool = False) -> FastAPI:
    """Build the routes of a service.

    Args:
        service: Answers the queries.
        closed: Whether the guard requires tokens, for the OpenAPI description.
    """
    app = FastAPI(
        title="placeray",
        version="1",
        description="Where was this photo taken? Every error, also for unknown paths and methods, has the "
        "shape of `ErrorAnswer`; every response has an `x-request-id`.",
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
        redirect_slashes=False,  # a redirect would repeat the Host header of the request
    )
    add_error_handlers(app)
    _add_queries(app, service)
    _add_matches(app, service)
    add_track(app, service, usual_candidates=_candidates(service.settings))
    _add_stored_images(app, service)
    _add_info(app, service)
    _add_metrics(app, service)
    _add_health(app, service)
    _add_page(app, service)
    if closed:
        roles: dict[str, str | None] = dict.fromkeys(OPEN_PATHS)
        for route in app.routes:
            for role, dependency in (("read", READ), ("metrics", METRICS)):
                if isinstance(route, APIRoute) and dependency in route.dependencies:
                    roles[route.path] = role
        describe = app.openapi
        app.openapi = lambda: with_security(describe(), roles=roles)  # type: ignore[method-assign]
    return app


def _candidates(settings: ServeSettings) -> int:
    """Return how many hits are re-ranked unless a request says otherwise."""
    return settings.candidates or min(CANDIDATES, settings.max_candidates)


def _add_queries(app: FastAPI, service: Service) -> None:
    settings = service.settings

    # Not in the annotations, which are resolved where the settings are unknown.
    top_k = Query(5, ge=1, le=settings.max_top_k, description="number of places")
    candidates = Query(
        _candidates(settings), ge=1, le=settings.max_candidates, description="hits that are re-ranked"
    )
    rerank = Query(
        True, description="re-rank by mutual nearest neighbours; auto: where calibration found that it helps"
    )

    @app.post(
        "/v1/query",
        dependencies=[READ],
        response_model=QueryAnswer,
        responses=errors(*PHOTO_ERRORS, 409, 431),
        openapi_extra=IMAGE_BODY,
        summary="Rank the places where a photo may have been taken",
    )
    async def query(
        request: Request,
        top_k: int = top_k,
        candidates: int = candidates,
        rerank: Rerank = rerank,
        max_wrong: Annotated[float | None, MAX_WRONG] = None,
        priors: Priors = PRIORS,
    ) -> Response:
        image = await read_photo(request)
        result = await service.answer(
            image,
            top_k=top_k,
            candidates=candidates,
            rerank=rerank,
            max_wrong=max_wrong,
            within=priors.within,
            prior=priors.prior,
        )
        answer = replace(result, request_id=request.state.request_id).to_dict()
        for match, described in zip(result.matches, answer["matches"], strict=True):
            described["uri"] = shown_uri(match.record, request.state.role)
        _log_fields(request, store_version=result.store_version, timings_ms=answer["timings_ms"])
        return _json(answer)


def _add_matches(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/matches",
        dependencies=[READ],
        response_model=LinesAnswer,
        responses=errors(*PHOTO_ERRORS, 404),
        openapi_extra=IMAGE_BODY,
        summary="List the matched points of a photo and one stored image",
    )
    async def matches(
        request: Request, image_id: Annotated[str, Query(min_length=1, max_length=1024)]
    ) -> Response:
        version, lines = await service.lines(await read_photo(request), image_id)
        pairs, agree = [line[:5] for line in lines], [bool(line[5]) for line in lines]
        head = {"request_id": request.state.request_id, "store_version": version, "image_id": image_id}
        return _json({**head, "pairs": pairs, "agree": agree})


def _add_stored_images(app: FastAPI, service: Service) -> None:
    @app.get(
        "/v1/image",
        dependencies=[READ],
        response_class=Response,
        responses={
            200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
            **errors(401, 403, 404, 422, 500, 503),
        },
        summary="A stored image, upright, as JPEG",
    )
    async def image(
        image_id: Annotated[str, Query(min_length=1, max_length=1024)],
        max_side_px: Annotated[int, Query(ge=16, le=2048, description="of the longer side")] = 640,
    ) -> Response:
        jpeg = await service.gallery.thumbnail(image_id, max_side_px)
        return Response(jpeg, media_type="image/jpeg", headers=STORED_IMAGE)

    @app.get(
        "/v1/places",
        dependencies=[READ],
        response_model=PlacesAnswer,
        responses=errors(401, 403, 422, 500, 503),
        summary="An even sample of the stored images with their positions",
    )
    async def places(request: Request, limit: Annotated[int, Query(ge=1, le=MAX_PLACES)] = 1000) -> Response:
        version, total, sample = await service.gallery.places(limit)
        head = {"request_id": request.state.request_id, "store_version": version, "total": total}
        return _json({**head, "places": sample})


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", response_model=Status, responses=errors(500), summary="Alive")
    async def healthz() -> Response:
        return _json({"status": "ok"})

    @app.get("/readyz", response_model=Status, responses=errors(500, 503), summary="Ready for queries")
    async def readyz() -> Response:
        status = await service.status()
        if status.error is not None:
            raise _unavailable(status.error)
        return _json({"status": "ready"})


def _add_info(app: FastAPI, service: Service) -> None:
    settings = service.settings

    @app.get(
        "/v1/info",
        dependencies=[READ],
        response_model=InfoAnswer,
        responses=errors(401, 403, 500, 503),
        summary="Model, store, limits",
    )
    async def info(request: Request) -> Response:
        status = await service.status()
        tiles = {"url": settings.tiles, "attribution": settings.tiles_attribution}
        answer = {
            "request_id": request.state.request_id,
            "model": settings.model_name,
            "store_version": status.version,
            "rows": status.rows,
            "tiles": tiles if settings.tiles else None,
        }
        shown = ("topology", "shards", "method", "max_body_bytes", "max_candidates", "max_top_k")
        matched = ("score", "matching", "stop_early", "rerank_budget_ms", "precision")
        answer |= {name: getattr(settings, name) for name in (*shown, "request_timeout_s", *matched)}
        answer["candidates"] = _candidates(settings)
        answer["search_method"] = status.method
        return _json(answer)


def _add_metrics(app: FastAPI, service: Service) -> None:
    @app.get(
        "/metrics",
        dependencies=[METRICS],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **errors(401, 403, 500)},
        summary="Prometheus metrics of the replica that answers",
    )
    async def metrics() -> Response:
        await service.status()
        body, media_type = service.metrics.render()
        return Response(body, headers={"content-type": media_type})


def _add_page(app: FastAPI, service: Service) -> None:
    headers = page_headers(service.settings.tiles)

    @app.get("/", include_in_schema=False)
    @app.head("/", include_in_schema=False)
    async def page() -> Response:
        return Response((WEB / "index.html").read_bytes(), media_type="text/html", headers=headers)

    app.mount("/web/leaflet", PageFiles(LEAFLET, headers))
    app.mount("/web", PageFiles(WEB, headers))


def _unavailable(error: str) -> Refusal:
    if error == "another_model":
        message = "The store was replaced by one of another model; restart the service with that model."
        return Refusal(503, "store_mismatch", message, 30)
    if error in ("unreadable", "store_unavailable"):
        return Refusal(503, "store_unavailable", "The store cannot be read at the moment; try again.", 5)
    return Refusal(503, "not_ready", "A part of the service does not answer yet; try again.", 2)


def _json(value: dict[str, Any]) -> Response:
    return Response(json.dumps(value, allow_nan=False), media_type="application/json")


def _log_fields(request: Request, **fields: object) -> None:
    """Add fields to the log line of the request."""
    request.scope["state"].setdefault("log", {}).update(fields)
