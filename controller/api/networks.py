"""Handlers about networks and events: what there is, what happened."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from starlette.responses import Response

from controller.api import rows
from controller.api.context import Api, Call
from controller.api.streams import ndjson
from controller.loops.events import in_order
from controller.loops.picture import Snapshot
from model import codec
from model.documents import NetworkDoc, NetworkPlanDoc
from model.errors import NotFound


async def list_networks(api: Api, call: Call) -> list[dict[str, Any]]:
    snapshot = api.snapshot()
    return [network_row(snapshot, document) for _, document in sorted(snapshot.of("networks").items())]


async def get_network(api: Api, call: Call) -> dict[str, Any]:
    document = api.snapshot().of("networks").get(call.path["name"])
    if document is None:
        raise NotFound(f"no network is called {call.path['name']}: see `shoal network ls`")
    plan = api.snapshot().of("netplans").get(call.path["name"])
    row = network_row(api.snapshot(), document)
    return {**row, "slices": dict(plan.slices) if plan else {}, "spec": codec.to_plain(document.spec)}


def network_row(snapshot: Snapshot, document: NetworkDoc) -> dict[str, Any]:
    spec = document.spec
    plan: NetworkPlanDoc | None = snapshot.of("netplans").get(spec.name)
    return {
        "name": spec.name,
        "id": document.id,
        "driver": spec.driver,
        "subnet": plan.subnet if plan else spec.subnet,
        "vni": plan.vni if plan else 0,
        "nodes": [node for node, _ in plan.slices] if plan else [],
        "stack": spec.stack,
        "internal": spec.internal,
        "labels": dict(spec.labels),
        "created": rows.time_text(document.created_ms),
    }


async def events(api: Api, call: Call) -> Response:
    query = call.query
    return ndjson(_events(api, query["follow"], query["since"] or 0, query["about"]))


async def _events(api: Api, follow: bool, since_ms: int, about: str | None) -> AsyncGenerator[dict[str, Any], None]:
    last = 0
    while True:
        index = api.index(("events",))
        for seq, event in in_order(api.snapshot().of("events"), last):
            last = seq
            if event.at_ms >= since_ms and about in (None, "", event.about):
                yield rows.event_row(seq, event)
        if not follow:
            return
        await api.wait_after(("events",), index, 3600.0)
