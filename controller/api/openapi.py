"""The OpenAPI description, made from the table of routes. Pure.

Rule: what is described is what is checked: the schemas of bodies and queries come from the same types that validate them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any, Final

from pydantic import TypeAdapter

from controller.api.routing import Query, Route, query_of
from controller.api.schemas import ErrorAnswer
from model.version import VERSION

REF: Final = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_STREAMED: Final = {"text/event-stream": {"type": "object"}}
"""What one piece of a stream is, when it is no text."""
_ERRORS: Final = {
    400: "What was sent cannot be taken", 403: "No certificate, or one that may not do this", 404: "There is no such thing",
    408: "The body did not come in time", 409: "It exists, is in use, or changed meanwhile", 413: "The body is too large",
    503: "Not ready: try again",
}  # fmt: skip


def description(routes: Sequence[Route]) -> dict[str, Any]:
    """OpenAPI 3.1."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for route in routes:
        path = _PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "shoal", "version": VERSION, "description": "The API between people's tools and the controller."},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.method.lower()}_{route.handler.__module__.rpartition('.')[2]}_{route.handler.__name__}",
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
                for name in _PARAMETER.findall(route.path)
            ),
            *(_query(row, schemas) for row in query_of(route)),
        ],
        "responses": _responses(route, schemas),
    }
    if route.body is not None:
        content = {"application/json": {"schema": _schema(route.body, schemas)}}
        found["requestBody"] = {"required": True, "content": content}
    elif route.takes:
        found["requestBody"] = {"required": True, "content": {route.takes: {"schema": {"type": "string", "format": "binary"}}}}
    return found


def _query(row: Query, schemas: dict[str, Any]) -> dict[str, Any]:
    return {"name": row.name, "in": "query", "description": row.text, "schema": _schema(row.kind, schemas)}


def _responses(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    media = route.stream or "application/json"
    answer = _STREAMED.get(media, {"type": "string"}) if route.stream else _schema(route.answer, schemas)
    found: dict[str, Any] = {str(route.status): {"description": "Done", "content": {media: {"schema": answer}}}}
    if route.leader:
        found["307"] = {"description": "The leader answers, at Location"}
    error = {"application/json": {"schema": _schema(ErrorAnswer, schemas)}}
    for status in sorted({*route.errors, *((408, 413) if route.body is not None else ())}):
        found[str(status)] = {"description": _ERRORS[status], "content": error}
    return found


def _schema(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    made = TypeAdapter(kind).json_schema(ref_template=REF)
    if is_dataclass(kind):  # routing refuses unknown fields of records too, which pydantic does not know
        for record in (made, *made.get("$defs", {}).values()):
            record["additionalProperties"] = False
    schemas.update(made.pop("$defs", {}))
    name = made.get("title", "")
    if made.get("type") == "object" and "properties" in made and name:
        schemas[name] = made
        return {"$ref": REF.format(model=name)}
    return made
