"""What the API says of networks: flat rows, and what `docker network inspect` shows, out of one snapshot.

Rules: `bridge`, `host` and `none` come first and stand in no document. A user network spans all nodes, so its scope is `swarm`,
of either driver. Every node has its own gateway on it; `Gateway` is that of the lowest slice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from ipaddress import IPv4Network, ip_interface, ip_network
from typing import Any, Final

from controller.api.context import Api
from controller.api.rows import time_text
from controller.decide.attached import BRIDGE, attachments_of
from controller.decide.replicas import ReplicaRow, replica_rows
from controller.loops.picture import Snapshot
from model import codec
from model.addresses import embedded, mac_of
from model.documents import NetworkDoc, NetworkPlanDoc, ServiceDoc, ServicePlanDoc
from model.errors import Conflict, NotFound
from model.spec import NetworkSpec

Row = dict[str, Any]
BUILT_IN: Final = {BRIDGE: "bridge", "host": "host", "none": "null"}
"""Name and driver."""
ID_PREFIX_MIN: Final = 3


def built_in(name: str) -> NetworkDoc:
    """With an id that is the same in every cluster."""
    ident = hashlib.sha256(f"shoal network {name}".encode()).hexdigest()[:16]
    return NetworkDoc(ident, NetworkSpec(name, driver=BUILT_IN[name]))


def all_networks(snapshot: Snapshot) -> list[NetworkDoc]:
    return [*map(built_in, BUILT_IN), *(document for _, document in sorted(snapshot.of("networks").items()))]


def network_of(snapshot: Snapshot, text: str) -> NetworkDoc:
    """By name, id, or the beginning of an id. Raises NotFound, Conflict (several)."""
    if text in BUILT_IN:
        return built_in(text)
    document: NetworkDoc | None = snapshot.of("networks").get(text)
    if document is not None:
        return document
    found = [row for row in all_networks(snapshot) if len(text) >= ID_PREFIX_MIN and row.id.startswith(text)]
    if len(found) > 1:
        raise Conflict(f"{text} is the beginning of {len(found)} networks' ids: use a longer one")
    if not found:
        raise NotFound(f"no network is called {text}: see `shoal network ls`")
    return found[0]


def users_of(snapshot: Snapshot, network: str) -> list[str]:
    """Services and single containers that are on the network, sorted."""
    return sorted(
        name
        for name, document in snapshot.of("services").items()
        if any(item.network == network for item in attachments_of(document))
    )


def used_networks(snapshot: Snapshot) -> frozenset[str]:
    """Names of all that somebody is on."""
    return frozenset(item.network for document in snapshot.of("services").values() for item in attachments_of(document))


def network_row(snapshot: Snapshot, document: NetworkDoc) -> Row:
    spec = document.spec
    plan = _plan(snapshot, document)
    return {
        "name": spec.name,
        "id": document.id,
        "driver": driver_of(spec),
        "scope": "local" if spec.name in BUILT_IN else "swarm",
        "subnet": plan.subnet or spec.subnet,
        "subnet6": plan.prefix6 or spec.subnet6,
        "vni": plan.vni,
        "nodes": [node for node, _ in plan.slices],
        "stack": spec.stack,
        "internal": spec.internal,
        "attachable": spec.attachable,
        "enable_ipv6": spec.enable_ipv6,
        "labels": dict(spec.labels),
        "created": time_text(document.created_ms),
    }


def driver_of(spec: NetworkSpec) -> str:
    return spec.driver if spec.driver not in ("", "default") else "overlay"


def inspected(api: Api, document: NetworkDoc) -> Row:
    """Everything: the row, and Docker's own words with capitals."""
    snapshot, spec = api.snapshot(), document.spec
    plan, replicas = _plan(snapshot, document), [*_replicas(api, spec.name)]
    return {
        **network_row(snapshot, document),
        "slices": dict(plan.slices),
        "spec": codec.to_plain(spec),
        "Name": spec.name,
        "Id": document.id,
        "Created": time_text(document.created_ms),
        "Scope": "local" if spec.name in BUILT_IN else "swarm",
        "Driver": driver_of(spec),
        "EnableIPv6": spec.enable_ipv6,
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": False,
        "IPAM": {"Driver": "default", "Options": {}, "Config": _config(document, plan, replicas)},
        "Gateways": {node: gateway_of(cidr) for node, cidr in plan.slices},
        "Containers": {row.container_id: _container(row, plan) for row in replicas if row.container_id},
        "Services": _services(snapshot, spec.name, plan.prefix6, replicas),
        "Options": dict(spec.options),
        "Labels": dict(spec.labels),
    }


def _plan(snapshot: Snapshot, document: NetworkDoc) -> NetworkPlanDoc:
    """An empty one while nothing was planned."""
    plan: NetworkPlanDoc | None = snapshot.of("netplans").get(document.spec.name)
    return plan if plan is not None and plan.id == document.id else NetworkPlanDoc(document.id, document.spec.name, 0, "")


def gateway_of(cidr: str) -> str:
    """The node's own address in its slice."""
    return str(ip_network(cidr).network_address + 1)


def _config(document: NetworkDoc, plan: NetworkPlanDoc, replicas: list[ReplicaRow]) -> list[Row]:
    if document.spec.name in BUILT_IN:  # made by each node for itself
        found = {ip_interface(dict(row.addresses)[BRIDGE]).network for row in replicas if BRIDGE in dict(row.addresses)}
        return [{"Subnet": str(net), "Gateway": str(net.network_address + 1)} for net in sorted(found, key=str)]
    subnet = plan.subnet or document.spec.subnet
    if not subnet:
        return []
    lowest = min((IPv4Network(cidr) for _, cidr in plan.slices), default=None)
    gateway = gateway_of(str(lowest)) if lowest is not None else ""
    rows = [{"Subnet": subnet, **({"Gateway": gateway} if gateway else {})}]
    if plan.prefix6:
        rows.append({"Subnet": plan.prefix6, **({"Gateway": embedded(plan.prefix6, gateway)} if gateway else {})})
    return rows


def _replicas(api: Api, network: str) -> Iterator[ReplicaRow]:
    """Those that are on the network now: with an address there, or sharing the machine's."""
    snapshot, view = api.snapshot(), api.view()
    for name in users_of(snapshot, network):
        for row in replica_rows(view, service=name):
            if network in dict(row.addresses) or (network in ("host", "none") and row.state == "running"):
                yield row


def _container(row: ReplicaRow, plan: NetworkPlanDoc) -> Row:
    address = dict(row.addresses).get(plan.name, "")
    return {
        "Name": row.name,
        "EndpointID": "",
        "MacAddress": mac_of(address, plan.vni) if address else "",
        "IPv4Address": address,
        "IPv6Address": f"{embedded(plan.prefix6, address.partition('/')[0])}/96" if plan.prefix6 and address else "",
        "Node": row.node,
    }


def _services(snapshot: Snapshot, network: str, prefix6: str, replicas: list[ReplicaRow]) -> Row:
    """Services with an address of their own there."""
    found: Row = {}
    tasks: dict[str, list[Row]] = {}
    for row in replicas:
        address = dict(row.addresses).get(network, "").partition("/")[0]
        tasks.setdefault(row.service, []).append({"Name": row.name, "EndpointIP": address, "Node": row.node})
    for name in users_of(snapshot, network):
        document: ServiceDoc = snapshot.of("services")[name]
        plan: ServicePlanDoc | None = snapshot.of("svcplans").get(name)
        vip = dict(plan.vips).get(network, "") if plan is not None and plan.id == document.id else ""
        if vip:
            found[name] = {
                "VIP": vip,
                "VIP6": embedded(prefix6, vip) if prefix6 else "",
                "Tasks": tasks.get(name, []),
            }
    return found
