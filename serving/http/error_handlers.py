"""Exception handlers of the routes: one shape for every error."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from serving.errors import Refusal

__all__ = ["add_error_handlers"]


def add_error_handlers(app: FastAPI) -> None:
    """Let refusals, invalid parameters and unknown paths and methods all have the body of `Refusal`."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        return _response(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        message = f"Parameter {where!r}: {first['msg']}; see /openapi.json."
        return _response(request, Refusal(422, "bad_parameter", message))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        reasons = {404: "not_found", 405: "method_not_allowed"}
        messages = {
            404: "This path does not exist; see /openapi.json.",
            405: "The method is not allowed; see /openapi.json.",
        }
        message = messages.get(error.status_code, "The request cannot be served; see /openapi.json.")
        reason = reasons.get(error.status_code, "bad_request")
        return _response(request, Refusal(error.status_code, reason, message, headers=error.headers))


def _response(request: Request, refusal: Refusal) -> Response:
    request.scope.setdefault("state", {})["reason"] = refusal.reason
    return Response(refusal.body, refusal.status, refusal.headers)
