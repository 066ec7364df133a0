"""One row for each route, and how a row becomes an ASGI endpoint: who may, what is read, how errors look.

Rules: everything needs an operator's (or controller's) certificate unless the row says `anonymous`. A body has a size limit, a
time limit and a model. Reads carry X-Shoal-Index and can block. Every error has the one shape; an unexpected one is logged with
its trace and answered without.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, is_dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from controller.api.context import Api, Call
from controller.certificates import Peer
from model.codec import unknown_keys
from model.errors import BadInput, ShoalError, Unauthorized, Unavailable
from model.pki_names import ROLE_CONTROLLER, ROLE_METRICS, ROLE_OPERATOR

log = logging.getLogger(__name__)

BODY_BYTES_MAX: Final = 8 * 1024 * 1024
BODY_BYTES_MAX_ANONYMOUS: Final = 64 * 1024
BODY_S: Final = 60.0
BODY_S_ANONYMOUS: Final = 10.0
WAIT_S_MAX: Final = 60.0

Handler = Callable[[Api, Call], Awaitable[Any]]


class TooLarge(BadInput):
    status = 413
    code = "too_large"


class TooSlow(BadInput):
    status = 408
    code = "too_slow"


@dataclass(frozen=True, slots=True)
class Query:
    """A query parameter. `kind`: its type; a tuple of texts for a repeated one."""

    name: str
    kind: Any = str
    text: str = ""
    default: Any = None


@dataclass(frozen=True, slots=True)
class Route:
    """One row. `reads`: kinds of documents the answer is made of, which makes it a blocking query.

    `stream`: media type of a streamed answer. `takes`: media type of a body that the handler reads itself.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    body: Any = None
    answer: Any = None
    query: tuple[Query, ...] = ()
    reads: tuple[str, ...] = ()
    anonymous: bool = False
    metrics: bool = False
    """A certificate that may read metrics only is enough."""
    leader: bool = False
    """Only the leader can answer: others say where it is."""
    stream: str = ""
    takes: str = ""
    status: int = 200
    errors: tuple[int, ...] = field(default=(400, 403, 404, 409, 503))


BLOCKING: Final = (
    Query("index", Annotated[int, Field(ge=0, lt=2**63)], "answer only when it may differ from the one of this index"),
    Query("wait", Annotated[float, Field(ge=0, le=3600)], f"at most so many seconds (to {WAIT_S_MAX:g})"),
)


def query_of(route: Route) -> tuple[Query, ...]:
    return (*route.query, *BLOCKING) if route.reads else route.query


def endpoint(api: Api, route: Route) -> Callable[[Request], Awaitable[Response]]:
    """The ASGI endpoint of a row."""
    adapters = {query.name: TypeAdapter(query.kind) for query in query_of(route)}
    body_adapter: TypeAdapter[Any] | None = TypeAdapter(route.body) if route.body is not None else None

    async def handle(request: Request) -> Response:
        try:
            peer = authorize(request, route.anonymous, route.metrics)
            if route.leader and not leads(api):
                return _elsewhere(api, request)
            query = _query(request, query_of(route), adapters)
            body = await _body(request, route, body_adapter)
            if route.reads and query["index"] is not None:
                await api.wait_after(route.reads, query["index"], min(WAIT_S_MAX, max(0.0, query["wait"] or 10.0)))
            index = api.index(route.reads) if route.reads else 0
            answer = await route.handler(api, Call(request, peer, request.path_params, query, body))
            return _response(answer, route, index, request)
        except ShoalError as error:
            return error_response(error)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception:
            log.exception("%s %s failed", route.method, route.path)
            return error_response(ShoalError("the controller failed on this request: see its log"))

    return handle


def leads(api: Api) -> bool:
    """Whether this controller is the one that the store says leads."""
    leader = api.snapshot().one("leader")
    return leader is not None and leader.api == api.api_address


def _elsewhere(api: Api, request: Request) -> Response:
    """To the leader. Raises Unavailable when there is none."""
    leader = api.snapshot().one("leader")
    if leader is None or not leader.api:
        raise Unavailable("no controller leads now: try again")
    query = f"?{request.url.query}" if request.url.query else ""
    return Response(status_code=307, headers={"location": f"{leader.api}{request.url.path}{query}"})


def authorize(request: Any, anonymous: bool = False, metrics: bool = False) -> Peer | None:
    """The caller. `metrics`: who may read metrics only may too. Raises Unauthorized."""
    peer: Peer | None = getattr(request.state, "peer", None)
    if anonymous:
        return peer
    if peer is None:
        raise Unauthorized("no client certificate: use the context of an operator (admin.json)")
    if peer.role not in (ROLE_OPERATOR, ROLE_CONTROLLER) and not (metrics and peer.role == ROLE_METRICS):
        raise Unauthorized(f"{peer.name}: a {peer.role or 'nameless'} certificate may not use this API")
    return peer


def error_response(error: ShoalError) -> JSONResponse:
    problems = list(getattr(error, "problems", ()))
    body = {"error": {"code": error.code, "message": str(error), "problems": problems}}
    headers = {"retry-after": "1"} if error.status == 503 else None
    return JSONResponse(body, status_code=error.status, headers=headers)


def _query(request: Request, rows: tuple[Query, ...], adapters: dict[str, TypeAdapter[Any]]) -> dict[str, Any]:
    known = {row.name for row in rows}
    problems = [f"query {name}: not known here" for name in request.query_params if name not in known]
    values: dict[str, Any] = {}
    for row in rows:
        raw: Any = request.query_params.getlist(row.name)
        if not raw:
            values[row.name] = row.default
            continue
        try:
            values[row.name] = adapters[row.name].validate_python(raw if row.kind == tuple[str, ...] else raw[-1])
        except ValidationError as error:
            problems.extend(f"query {row.name}: {found['msg']}" for found in error.errors())
    if problems:
        raise BadInput(problems[0], problems)
    return values


async def _body(request: Request, route: Route, adapter: TypeAdapter[Any] | None) -> Any:
    if adapter is None:
        return None
    within_s = BODY_S_ANONYMOUS if route.anonymous else BODY_S
    try:
        async with asyncio.timeout(within_s):
            data = await read_limited(request, BODY_BYTES_MAX_ANONYMOUS if route.anonymous else BODY_BYTES_MAX)
    except TimeoutError:
        raise TooSlow(f"the body did not come within {within_s:g} s") from None
    try:
        value = adapter.validate_json(data or b"{}", strict=True)
    except ValidationError as error:
        problems = [
            ".".join(["body", *map(str, found["loc"])]) + f": {found['msg']}"
            for found in error.errors(include_url=False, include_context=False, include_input=False)[:50]
        ]
        raise BadInput(problems[0], problems) from None
    if is_dataclass(route.body) and (unknown := unknown_keys(route.body, json.loads(data))):
        problems = [f"body.{path[:200]}: there is no such field" for path in unknown[:50]]
        raise BadInput(problems[0], problems)
    return value


async def read_limited(request: Request, bytes_max: int) -> bytes:
    """The whole body. Raises TooLarge before more than `bytes_max` is held."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > bytes_max:
            raise TooLarge(f"the body is larger than {bytes_max} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _response(answer: Any, route: Route, index: int, request: Request) -> Response:
    if isinstance(answer, Response):
        return answer
    headers = {"x-shoal-index": str(index), "etag": f'W/"{index}"'} if index else {}
    if index and request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(dump(answer), route.status, headers, "application/json")


def dump(answer: Any) -> bytes:
    if isinstance(answer, BaseModel):
        answer = answer.model_dump()
    return json.dumps(answer, separators=(",", ":"), ensure_ascii=False).encode()
