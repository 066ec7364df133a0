"""Handlers about what was measured: fifteen minutes of a service, a replica or a node, and the newest of all.

Rules: only the leader has samples; others say where it is (`Route.leader`). A history is columns of equal length, oldest first,
null where nobody spoke. The stream gives the newest row of everything once a step: whoever reads slowly misses steps, and
everybody gets the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

from starlette.responses import Response

from controller.api import rows
from controller.api.context import Api, Call
from controller.api.nodes import node_of
from controller.api.routing import dump, leads
from controller.api.services import service_of
from controller.api.streams import event_stream
from controller.loops.picture import Snapshot
from controller.samples.port import NODE_FIELDS, SERVICE_FIELDS, History
from model.documents import ScaleDoc, ServiceDoc
from model.errors import BadInput, ShoalError, Unavailable
from model.states import COMPLETE, RUNNING
from protos import node_pb2 as pb

READERS_MAX: Final = 100
STATS_S: Final = 2.0
_LOOKS: Final = 5
"""How often within a step it is looked whether there is a newer one."""


async def service_history(api: Api, call: Call) -> dict[str, Any]:
    document = service_of(api, call.path["name"])
    return _columns(api, call, SERVICE_FIELDS, api.samples.service(document.id, call.query["since"] or 0))


async def replica_history(api: Api, call: Call) -> dict[str, Any]:
    row = rows.replica(api, call.path["name"])
    found = api.samples.replica(row["service_id"], row["slot"], call.query["since"] or 0, row["node"])
    return _columns(api, call, SERVICE_FIELDS, found)


async def node_history(api: Api, call: Call) -> dict[str, Any]:
    document = node_of(api, call.path["name"])
    return _columns(api, call, NODE_FIELDS, api.samples.node(document.name, call.query["since"] or 0))


def _columns(api: Api, call: Call, fields: Sequence[str], history: History) -> dict[str, Any]:
    """Raises BadInput for a field that is none."""
    text = call.query["fields"]
    wanted = [name.strip() for name in text.split(",")] if text else list(fields)
    if unknown := [name for name in wanted if name not in fields]:
        raise BadInput(f"query fields: {unknown[0][:80]!r} is none of {', '.join(fields)}")
    columns = {name: [_short(value) for value in history[name]] for name in wanted}
    return {"name": call.path["name"], "step_ms": api.samples.step_ms(), "at_ms": list(history["at_ms"]), **columns}


def _short(value: float | None) -> float | None:
    """Without digits nobody measured."""
    if value is None:
        return None
    return int(value) if value == int(value) else round(value, 4)


# ---- the newest


async def stream(api: Api, call: Call) -> Response:
    if api.board.readers >= READERS_MAX:
        raise Unavailable(f"{READERS_MAX} read this stream already: try again later")
    return event_stream(_events(api, call.query["follow"]))


async def _events(api: Api, follow: bool) -> AsyncGenerator[bytes, None]:
    """One, or one after the other until the reader goes, or the lead."""
    api.board.readers += 1
    told_ms = 0
    try:
        while leads(api):
            if (at_ms := api.samples.settled_ms()) > told_ms:
                told_ms = at_ms
                yield _event(api, at_ms)
            if not follow:
                return
            await api.clock.sleep(api.samples.step_ms() / 1000 / _LOOKS)
    finally:
        api.board.readers -= 1


def _event(api: Api, at_ms: int) -> bytes:
    board = api.board
    if board.at_ms != at_ms:
        board.at_ms, board.event = at_ms, b"event: samples\ndata: " + dump(newest(api)) + b"\n\n"
    return board.event


def newest(api: Api) -> dict[str, Any]:
    """The newest row of each service and node, with what there is of it."""
    samples, snapshot = api.samples, api.snapshot()
    at_ms = samples.settled_ms()
    since_ms = at_ms - samples.step_ms()
    with api.tally.turn:
        api.tally.look(snapshot)
        counts = api.tally.services
    services = [
        {**_service(snapshot, document, counts.get(document.id, {})), **_last(samples.service(document.id, since_ms))}
        for _, document in sorted(snapshot.of("services").items())
    ]
    nodes = [{**_node(snapshot, name), **_last(samples.node(name, since_ms))} for name in sorted(snapshot.of("nodes"))]
    return {"at_ms": at_ms, "step_ms": samples.step_ms(), "services": services, "nodes": nodes}


def _last(history: History) -> dict[str, float | None]:
    return {name: _short(column[-1]) if column else None for name, column in history.items() if name != "at_ms"}


def _service(snapshot: Snapshot, document: ServiceDoc, count: Mapping[str | int, int]) -> dict[str, Any]:
    spec = document.spec
    whole = sum(number for state, number in count.items() if isinstance(state, str) and state != "ready")
    wanted = 0 if document.stopped else whole if spec.mode.startswith("global") else document.scale
    return {
        "name": spec.name,
        "id": document.id,
        "stack": spec.stack,
        "running": count.get(RUNNING, 0) + (count.get(COMPLETE, 0) if spec.mode.endswith("job") else 0),
        "wanted": wanted,
        "decision": _decision(snapshot.of("scales").get(spec.name), document),
    }


def _decision(scale: ScaleDoc | None, document: ServiceDoc) -> dict[str, Any] | None:
    """The autoscaler's last one that changed something."""
    if scale is None or scale.id != document.id:
        return None
    last = next((row for row in reversed(scale.history) if row.acted and row.wanted != row.before), None)
    if last is None:
        return None
    return {"at_ms": last.at_ms, "before": last.before, "wanted": last.wanted, "sentence": last.sentence}


def _node(snapshot: Snapshot, name: str) -> dict[str, Any]:
    health, status = snapshot.of("health").get(name), snapshot.of("status").get(name)
    assignment = snapshot.of("assignments").get(name)
    return {
        "name": name,
        "state": health.state if health else "unreachable",
        "availability": snapshot.of("nodes")[name].availability,
        "replicas": sum(row.count for row in assignment.services) if assignment else 0,
        "cpus": status.info.cpus if status else 0.0,
        "memory_limit_bytes": status.info.memory_bytes if status else 0,
    }


# ---- now, from the nodes themselves


async def stats(api: Api, call: Call) -> dict[str, Any]:
    """`replicas`: what each node's runtime counts of its containers since they began; `missing`: nodes that did not answer."""
    query = call.query
    if query["service"]:
        service_of(api, query["service"])
    running = rows.replicas(api, service=query["service"] or "", node=node_of(api, query["node"]).name if query["node"] else "")
    names = {(row["service_id"], row["slot"], row["created_ms"], row["node"]): row["name"] for row in running if row["node"]}
    asked = sorted({row["node"] for row in running if row["node"]} & set(api.agents.nodes()))
    answers = await api.agents.everywhere(lambda node: _stats(api, node), asked)
    found = [
        {**row, "name": names[key], "node": node}
        for node, answer in answers.items()
        for row in (answer if not isinstance(answer, ShoalError) else ())
        if (key := (row["service_id"], row["slot"], row["created_ms"], node)) in names
    ]
    missing = sorted({row["node"] for row in running if row["node"]} - answers.keys())
    missing += [node for node, answer in answers.items() if isinstance(answer, ShoalError)]
    return {"replicas": sorted(found, key=lambda row: str(row["name"])), "missing": sorted(missing)}


async def _stats(api: Api, node: str) -> list[dict[str, Any]]:
    answer = await api.agents.call(node, "Stats", pb.Empty(), STATS_S)
    found: list[dict[str, Any]] = json.loads(answer.json)["replicas"]
    return found
