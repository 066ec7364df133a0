"""Handlers about networks and events: what there is, what happened; making and removing networks.

Rules: a network somebody is on is not removed, a stack's only with the stack; `bridge`, `host` and `none` are always there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from starlette.responses import Response

from controller.api import rows
from controller.api.claims import Commit, claimed
from controller.api.context import Api, Call
from controller.api.network_rows import (
    BUILT_IN,
    all_networks,
    inspected,
    network_of,
    network_row,
    used_networks,
    users_of,
)
from controller.api.streams import ndjson
from controller.decide.nets import subnet_problem
from controller.decide.wording import listed
from controller.loops.events import in_order
from controller.loops.writer import guards, split
from model import codec
from model.documents import NetworkDoc, key
from model.errors import BadInput, Conflict
from model.spec import NetworkSpec
from model.spec_check import network_problems
from model.store_port import Delete, Guard, Put


async def list_networks(api: Api, call: Call) -> list[dict[str, Any]]:
    snapshot = api.snapshot()
    return [network_row(snapshot, document) for document in all_networks(snapshot)]


async def get_network(api: Api, call: Call) -> dict[str, Any]:
    return inspected(api, network_of(api.snapshot(), call.path["name"]))


async def create_network(api: Api, call: Call) -> dict[str, Any]:
    spec: NetworkSpec = call.body
    if spec.name in BUILT_IN:
        raise _exists(spec.name)
    problems = network_problems(spec)
    if spec.stack:
        problems.append(f"network {spec.name} names the stack {spec.stack}: apply the stack instead")
    if spec.external:
        problems.append(f"network {spec.name} is called external: such a network is made elsewhere")
    if problems:
        raise BadInput(problems[0], problems)
    document = NetworkDoc(api.random.token_hex(8), spec, api.now_ms())
    path = key("networks", spec.name)

    async def create(commit: Commit) -> int:
        if spec.name in api.snapshot().of("networks"):
            raise _exists(spec.name)
        if problem := subnet_problem(api.view(), spec, api.settings):
            raise Conflict(problem)
        return await commit([Guard(path, 0)], [Put(path, codec.encode(document))])

    return {"id": document.id, "name": spec.name, "index": await claimed(api, f"network {spec.name}", create)}


def _exists(name: str) -> Conflict:
    return Conflict(f"network {name} exists already: remove it first, or choose another name")


async def remove_network(api: Api, call: Call) -> dict[str, Any]:
    document = network_of(api.snapshot(), call.path["name"])
    name = document.spec.name
    if name in BUILT_IN:
        raise BadInput(f"network {name} is always there and cannot be removed")
    if document.spec.stack:
        raise Conflict(f"network {name} belongs to stack {document.spec.stack}: it goes with `shoal stack rm`")

    async def take_away(commit: Commit) -> int:
        if network_of(api.snapshot(), name).id != document.id:
            raise Conflict(f"network {name} was made anew meanwhile: look again and repeat")
        if users := users_of(api.snapshot(), name):
            raise Conflict(f"network {name} is in use by {listed(users)}: disconnect or remove them first")
        return await _remove(api, commit, [name])

    return {"name": name, "id": document.id, "index": await claimed(api, f"network {name}", take_away)}


async def _remove(api: Api, commit: Commit, names: Sequence[str]) -> int:
    snapshot, index = api.snapshot(), 0
    for run in split([Delete(key("networks", name)) for name in names]):
        index = await commit(guards(run, snapshot), run)
    return index


async def prune_networks(api: Api, call: Call) -> dict[str, Any]:
    """Networks nobody is on; those of stacks go with their stacks."""

    async def take_away(commit: Commit) -> list[str]:
        used, found = used_networks(api.snapshot()), sorted(api.snapshot().of("networks").items())
        names = [name for name, document in found if not document.spec.stack and name not in used]
        await _remove(api, commit, names)
        return names

    return {"removed": await claimed(api, "networks", take_away)}


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
