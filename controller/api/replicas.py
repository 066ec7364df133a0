"""Handlers about replicas: list, inspect, logs."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.responses import Response

from controller.api import rows
from controller.api.context import Api, Call
from controller.api.streams import guarded, merged, ndjson
from model.errors import NotFound, ShoalError, Unavailable
from protos import node_pb2 as pb


async def list_replicas(api: Api, call: Call) -> list[dict[str, Any]]:
    query = call.query
    return rows.replicas(api, query["stack"] or "", query["service"] or "", query["node"] or "", query["all"])


async def get_replica(api: Api, call: Call) -> dict[str, Any]:
    """The row, and what the node's runtime says of the container (null with the reason when it cannot be asked)."""
    row = rows.replica(api, call.path["name"])
    if not row["node"]:
        return {**row, "container": None}
    try:
        answer = await api.agents.call(row["node"], "Inspect", pb.ContainerRequest(key=replica_key(row)))
        return {**row, "container": json.loads(answer.json)}
    except ShoalError as error:
        return {**row, "container": None, "container_error": str(error)}


def replica_key(row: dict[str, Any]) -> pb.ReplicaKey:
    return pb.ReplicaKey(service_id=row["service_id"], slot=row["slot"], created_ms=row["created_ms"])


def placed_replica(api: Api, name: str) -> dict[str, Any]:
    """A replica that is on a node. Raises NotFound, Unavailable."""
    row = rows.replica(api, name)
    if not row["node"]:
        raise Unavailable(f"{name} runs nowhere yet: {row['message']}")
    return row


async def replica_logs(api: Api, call: Call) -> Response:
    row = placed_replica(api, call.path["name"])
    await api.agents.stub(row["node"])
    return ndjson(guarded(_lines(api, row, call.query), _blank(row)))


async def service_logs(api: Api, call: Call) -> Response:
    """Of every replica of the service, the ended ones too."""
    name = call.path["name"]
    if name not in api.snapshot().of("services"):
        raise NotFound(f"no service is called {name}: see `shoal service ls`")
    found = [row for row in rows.replicas(api, service=name, ended=True) if row["node"]]
    return ndjson(merged([guarded(_lines(api, row, call.query), _blank(row)) for row in found]))


def _blank(row: dict[str, Any]) -> dict[str, Any]:
    return {"replica": row["name"], "node": row["node"], "at_ns": 0, "stream": "stderr", "line": ""}


async def _lines(api: Api, row: dict[str, Any], query: Any) -> AsyncGenerator[dict[str, Any], None]:
    tail = query["tail"]
    request = pb.LogsRequest(
        key=replica_key(row), follow=query["follow"], tail=-1 if tail is None else tail, since_ms=query["since"] or 0
    )
    async with aclosing(api.agents.stream(row["node"], "Logs", request)) as found:
        async for line in found:
            yield {
                "replica": row["name"], "node": row["node"], "at_ns": line.at_ns, "stream": line.stream, **_text(line.line),
            }  # fmt: skip


def _text(data: bytes) -> dict[str, str]:
    """Bytes that are no text come as base64 too."""
    try:
        return {"line": data.decode()}
    except UnicodeDecodeError:
        return {"line": data.decode(errors="replace"), "base64": base64.b64encode(data).decode()}
