"""Handlers that connect running containers to networks and take them off again.

Rules: what a service's containers are attached to is a field of the service's document and no new version: nothing is
restarted. All replicas of a service are connected alike. Who shares a network with the machine or another container, or has
none by its own wish, is not connected to anything.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any, Final

from controller.api import rows
from controller.api.claims import Commit, claimed
from controller.api.context import Api, Call
from controller.api.network_rows import network_of
from controller.api.schemas import ConnectBody, DisconnectBody
from controller.decide.attached import attachments_of, fixed_of
from controller.decide.fixed import unusable
from controller.loops.picture import Snapshot
from model import codec
from model.documents import NetworkDoc, ServiceDoc, ServicePlanDoc, key
from model.errors import BadInput, Conflict, NotFound
from model.spec import Attachment, ServiceSpec
from model.store_port import Guard, Put

_SHARED: Final = ("host", "none")


async def connect(api: Api, call: Call) -> dict[str, Any]:
    body: ConnectBody = call.body
    service = _service_of(api, body.container)
    _check_links(body)

    async def attach(commit: Commit) -> dict[str, Any]:
        network = network_of(api.snapshot(), call.path["name"])
        wanted = Attachment(network.spec.name, tuple(dict.fromkeys(body.aliases)), body.ipv4_address)
        old, revision = await api.read("services", service)
        document = _connected(api, _there(old, service), network, wanted)
        path = key("services", service)
        index = await commit([Guard(path, revision)], [Put(path, codec.encode(document))])
        return {"network": wanted.network, "service": service, "index": index}

    return await claimed(api, f"service {service}", attach)


def _connected(api: Api, document: ServiceDoc, network: NetworkDoc, wanted: Attachment) -> ServiceDoc:
    """The document with the network. Raises Conflict, BadInput."""
    now, service = attachments_of(document), document.spec.name
    if any(item.network == wanted.network for item in now):
        raise Conflict(f"{service} is on network {wanted.network} already")
    if problem := _shared(service, now) or connection_problem(api.snapshot(), document, network, wanted):
        raise BadInput(problem)
    return replace(document, networks=(*now, wanted), updated_ms=api.now_ms())


async def disconnect(api: Api, call: Call) -> dict[str, Any]:
    """`force`: not being on it is no error."""
    body: DisconnectBody = call.body
    name = network_of(api.snapshot(), call.path["name"]).spec.name
    service = _service_of(api, body.container)

    def change(old: ServiceDoc | None) -> ServiceDoc:
        document = _there(old, service)
        now = attachments_of(document)
        left = tuple(item for item in now if item.network != name)
        if left == now:
            if body.force:
                return document
            raise Conflict(f"{service} is not on network {name}")
        if name in _SHARED:
            raise BadInput(f"{service} has the network {name} for as long as it lives: make it anew on another one")
        return replace(document, networks=left, updated_ms=api.now_ms())

    _, _, index = await api.edit("services", service, change)
    return {"network": name, "service": service, "index": index}


def _there(document: ServiceDoc | None, name: str) -> ServiceDoc:
    if document is None:
        raise NotFound(f"no container and no service is called {name}: see `shoal ps`")
    return document


def _service_of(api: Api, text: str) -> str:
    """The service of that name, or that of the replica. Raises NotFound."""
    if text in api.snapshot().of("services"):
        return text
    try:
        return str(rows.replica(api, text)["service"])
    except NotFound:
        return _there(None, text).spec.name


def _check_links(body: ConnectBody) -> None:
    for name, alias in body.links:
        if name != alias:
            hint = f"`shoal network connect --alias {alias} NETWORK {name}` gives it that name for everybody there"
            raise BadInput(f"link {name}:{alias}: a running container gets no further links: {hint}")


def _shared(service: str, now: tuple[Attachment, ...]) -> str:
    for item in now:
        if item.network == "host":
            return f"{service} shares the machine's network and cannot be on another one"
        if item.network == "none":
            return f"{service} was made without a network and cannot be on one"
        if ":" in item.network:
            return f"{service} shares the network of {item.network.partition(':')[2]}: connect that one"
    return ""


def connection_problem(snapshot: Snapshot, document: ServiceDoc, network: NetworkDoc, wanted: Attachment) -> str:
    """Why the service cannot be attached like that; empty when it can."""
    spec = network.spec
    if spec.name in _SHARED:
        return f"a container is made on network {spec.name}, and is never connected to it later"
    if spec.name == "bridge" and (wanted.aliases or wanted.ipv4_address):
        return "network bridge has neither names nor chosen addresses: use a network of your own"
    if document.spec.single and not spec.attachable:
        return f"network {spec.name} is not attachable: only services of stacks can be on it"
    if not wanted.ipv4_address:
        return ""
    return address_problem(snapshot, document.spec, wanted, document.scale)


def address_problem(snapshot: Snapshot, spec: ServiceSpec, wanted: Attachment, scale: int) -> str:
    """Why the address that is asked for cannot be had; empty when it can."""
    try:
        address = IPv4Address(wanted.ipv4_address)
    except ValueError:
        return f"{spec.name}: {wanted.ipv4_address[:80]!r} is no IPv4 address"
    if scale > 1 or spec.mode not in ("replicated", "replicated-job"):
        return f"{spec.name}: address {address} can be that of one container only, and the service may have more"
    plan, document = snapshot.of("netplans").get(wanted.network), snapshot.of("networks").get(wanted.network)
    subnet = plan.subnet if plan is not None else document.spec.subnet if document is not None else ""
    if not subnet:
        return f"{spec.name}: address {address}: network {wanted.network} has no subnet yet: create it with --subnet"
    if why := unusable(subnet, dict(plan.slices) if plan is not None else {}, str(address)):
        return f"{spec.name}: address {address} on network {wanted.network} {why}: choose another"
    for other, row in snapshot.of("services").items():
        if other != spec.name and _has(snapshot, row, wanted):
            return f"{spec.name}: address {address} on network {wanted.network} is that of {other}"
    return ""


def _has(snapshot: Snapshot, document: ServiceDoc, wanted: Attachment) -> bool:
    """Whether the service asks for the address, or has it as its own."""
    plan: ServicePlanDoc | None = snapshot.of("svcplans").get(document.spec.name)
    taken = (wanted.network, wanted.ipv4_address)
    return taken in fixed_of(document) or (plan is not None and plan.id == document.id and taken in plan.vips)
