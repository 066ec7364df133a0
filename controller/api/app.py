"""The ASGI application: the table's routes under one error shape.

Rules: an unknown path and a wrong method answer in the same shape as every other error. Nothing here knows what a route does.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.routing import Route as AsgiRoute

from controller.api.context import Api
from controller.api.routes import ROUTES
from controller.api.routing import authorize, endpoint, error_response
from model.errors import NotFound, ShoalError


class WrongMethod(ShoalError):
    status = 405
    code = "method"


def make_app(api: Api, more: Sequence[BaseRoute] = ()) -> Starlette:
    """The application; `more`: routes that are no plain requests (websockets)."""
    routes: list[BaseRoute] = [
        AsgiRoute(row.path, endpoint(api, row), methods=[row.method], include_in_schema=False) for row in ROUTES
    ]
    return Starlette(routes=[*routes, *more], exception_handlers={HTTPException: _http_error})


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    try:
        authorize(request)
    except ShoalError as refused:
        return error_response(refused)
    if error.status_code == 405:
        answer = error_response(WrongMethod(f"{request.method} is not possible on {request.url.path}"))
        answer.headers.update(dict(error.headers or {}))
        return answer
    return error_response(NotFound(f"there is no {request.url.path} in this API: see /v1/openapi.json"))

