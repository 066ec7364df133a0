"""Handlers about services: list, create (a single container), scale, stop, start, remove, explain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from controller.api import rows
from controller.api.claims import Commit, claimed, claims
from controller.api.connections import address_problem
from controller.api.context import Api, Call
from controller.api.pinning import pin_services
from controller.api.registry_logins import keeping, logins_of
from controller.api.scale_orders import set_floor
from controller.api.schemas import ScaleBody
from controller.decide import scales
from controller.decide.attached import UNPLANNED, crowded
from controller.decide.clashes import port_clashes
from controller.decide.links import linked_node
from controller.decide.wording import too_many
from controller.loops.picture import Snapshot
from model import codec
from model.documents import ServiceDoc, StackDoc, VolumeDoc, key
from model.errors import BadInput, Conflict, NotFound
from model.spec import ServiceSpec, VolumeSpec
from model.spec_check import service_problems
from model.store_port import Delete, Guard, Op, Put


async def list_services(api: Api, call: Call) -> list[dict[str, Any]]:
    return rows.services(api, call.query["stack"] or "")


async def get_service(api: Api, call: Call) -> dict[str, Any]:
    return rows.service(api, service_of(api, call.path["name"]))


def service_of(api: Api, name: str) -> ServiceDoc:
    """Raises NotFound."""
    document: ServiceDoc | None = api.snapshot().of("services").get(name)
    if document is None:
        raise NotFound(f"no service is called {name}: see `shoal service ls`")
    return document


async def create_service(api: Api, call: Call) -> dict[str, Any]:
    spec: ServiceSpec = call.body
    if spec.stack:
        raise BadInput(f"service {spec.name} names the stack {spec.stack}: apply the stack instead")
    if problems := service_problems(spec):
        raise BadInput(problems[0], problems)
    logins = logins_of(call.request)
    found = await pin_services(api, [spec], "changed", logins)
    (spec,), keep = found.services, keeping(api.seals, logins)

    async def create(commit: Commit) -> ServiceDoc:
        if (await api.read("services", spec.name))[0] is not None:
            raise Conflict(f"{spec.name} exists already: remove it first, or choose another name")
        document = _document(api, spec)
        document = replace(document, registry_auth=keep(document.id, spec.container.image, None))
        guards, ops = _creation(api, document)
        await commit(guards, ops)
        return document

    row = rows.service(api, await claimed(api, spec.name, create, needed=claims(spec.container)))
    return {**row, "unpinned": list(found.warnings), "absent": bool(found.absent)}


def _document(api: Api, spec: ServiceSpec) -> ServiceDoc:
    """Raises BadInput, Conflict: what the cluster does not have, or somebody else has."""
    if problems := unmet(spec, api.snapshot()):
        raise BadInput(problems[0], problems)
    now_ms, view = api.now_ms(), api.view()
    if node := linked_node(view, spec):
        spec = replace(spec, placement=replace(spec.placement, node=node))
    document = ServiceDoc(api.random.token_hex(8), spec, scales.applied(None, spec)[0], 1, False, now_ms, now_ms)
    if clashes := port_clashes(view, [document]):
        raise Conflict(f"{clashes[0]} (and {len(clashes) - 1} more)" if clashes[1:] else clashes[0])
    return document


def _creation(api: Api, document: ServiceDoc) -> tuple[list[Guard], list[Op]]:
    """Of the service, and of the volumes that it names and are not there."""
    path = key("services", document.spec.name)
    guards = [Guard(path, 0)]
    ops: list[Op] = [Put(path, codec.encode(document))]
    for name in missing_volumes(document.spec, api.snapshot().of("volumes")):
        volume = VolumeDoc(api.random.token_hex(8), VolumeSpec(name), document.created_ms)
        guards.append(Guard(key("volumes", name), 0))
        ops.append(Put(key("volumes", name), codec.encode(volume)))
    return guards, ops


def unmet(spec: ServiceSpec, snapshot: Snapshot) -> list[str]:
    """What the service asks for and the cluster does not have: networks, the node it is bound to, room for so many."""
    names = (attachment.network for attachment in spec.container.networks)
    missing = [name for name in names if name not in UNPLANNED and name not in snapshot.of("networks")]
    problems = [f"service {spec.name}: there is no network {name}: see `shoal network ls`" for name in missing]
    for attachment in spec.container.networks:
        document = snapshot.of("networks").get(attachment.network)
        if document is not None and spec.single and not document.spec.attachable:
            problems.append(f"{spec.name}: network {attachment.network} is not attachable: only stacks' services can be on it")
        if document is not None and attachment.ipv4_address:
            problems += [found] if (found := address_problem(snapshot, spec, attachment, spec.replicas)) else []
    node = spec.placement.node
    if node and node not in snapshot.of("nodes"):
        problems.append(f"service {spec.name}: no node is called {node}: see `shoal node ls`")
    if why := too_many(spec.replicas, len(snapshot.of("nodes"))):
        problems.append(f"service {spec.name}: {why}")
    return problems


def missing_volumes(spec: ServiceSpec, volumes: Any) -> list[str]:
    """Named volumes of the service that have no document yet, in order."""
    named = dict.fromkeys(mount.source for mount in spec.container.mounts if mount.type == "volume" and mount.source)
    return [name for name in named if name not in volumes]


_UNSCALED: Final = {
    "global": "is global: it has one replica on every node that its constraints allow, and cannot be scaled",
    "global-job": "is a job on every node and cannot be scaled",
    "replicated-job": "is a job: how often it runs stands in its file and cannot be scaled",
}


async def scale(api: Api, call: Call) -> dict[str, Any]:
    body: ScaleBody = call.body
    name = call.path["name"]

    def change(old: ServiceDoc | None) -> ServiceDoc:
        document = _there(old, name)
        if document.spec.mode != "replicated":
            raise BadInput(f"service {name} {_UNSCALED[document.spec.mode]}")
        if document.spec.single and body.replicas != 1:
            raise BadInput(f"{name} is a single container: apply it as a service of a stack to scale it")
        if document.scale == body.replicas:
            return document
        if why := too_many(body.replicas, len(api.snapshot().of("nodes"))):
            raise BadInput(f"service {name}: {why}")
        after = replace(document, scale=body.replicas, updated_ms=api.now_ms())
        if problems := crowded(after):
            raise BadInput(problems[0], problems)
        return after

    known = service_of(api, name)
    change(known)
    first, _ = await api.read("services", name)  # a floor moves the autoscaler at once: it may be quicker than the edit
    floor = await set_floor(api, known, body.replicas, body.floor_s)
    _, new, revision = await api.edit("services", name, change)
    return {"name": name, "before": _there(first, name).scale, "replicas": new.scale, "index": revision, **floor}


async def stop(api: Api, call: Call) -> dict[str, Any]:
    return await _set_stopped(api, call.path["name"], True)


async def start(api: Api, call: Call) -> dict[str, Any]:
    return await _set_stopped(api, call.path["name"], False)


async def _set_stopped(api: Api, name: str, stopped: bool) -> dict[str, Any]:
    def change(old: ServiceDoc | None) -> ServiceDoc:
        document = _there(old, name)
        if document.stopped == stopped:
            return document
        return replace(document, stopped=stopped, updated_ms=api.now_ms())

    _, new, revision = await api.edit("services", name, change)
    return {**rows.service(api, new), "index": revision}


async def remove(api: Api, call: Call) -> dict[str, Any]:
    name = call.path["name"]
    old, revision = await api.read("services", name)
    document = _there(old, name)
    guards, ops = [Guard(key("services", name), revision)], _removal([name])
    if document.spec.stack:
        stack, stack_revision = await api.read("stacks", document.spec.stack)
        if stack is not None and name in stack.services:
            path = key("stacks", stack.name)
            guards.append(Guard(path, stack_revision))
            ops.append(Put(path, codec.encode(_without(stack, name, api.now_ms()))))
    index = await api.commit(guards, ops)
    return {"name": name, "index": index}


def _removal(names: Sequence[str]) -> list[Op]:
    return [Delete(key("services", name)) for name in names]


def _without(stack: StackDoc, name: str, now_ms: int) -> StackDoc:
    return replace(stack, services=tuple(row for row in stack.services if row != name), updated_ms=now_ms)


def _there(document: ServiceDoc | None, name: str) -> ServiceDoc:
    if document is None:
        raise NotFound(f"no service is called {name}: see `shoal service ls`")
    return document


async def explain(api: Api, call: Call) -> dict[str, Any]:
    return rows.explain_service(api, call.path["name"])
