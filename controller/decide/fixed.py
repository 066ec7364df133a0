"""Addresses that specs ask for: whether they can be had, and on which node they are.

Rules: of two services that ask for the same address the older one gets it. The address is where the replica is that counts: on
the node of the slot's holder, or where it has just been placed.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, ip_network

from controller.decide.batch import Batch
from controller.decide.nets import holds
from controller.decide.work import Work
from model.documents import ServiceDoc


def address_problem(batch: Batch, doc: ServiceDoc, network: str, address: str) -> str:
    """Why the service cannot have the address on the network, or "". After the network is planned."""
    plan = batch.nets.current(network)
    if plan is None:
        return ""
    why = unusable(plan.subnet, batch.nets.slices(network), address) or _is_anothers(batch, doc, network, address)
    return f"network {network}: address {address} {why}" if why else ""


def place_fixed(batch: Batch, work: Work) -> None:
    """Tell the networks where the service's addresses are after this pass."""
    entries = batch.index.placed.get(work.name, {})
    nodes = [node for node in sorted(batch.draft.standing(work.name, entries)) if batch.state(node) not in ("down", "gone")]
    primaries = [slot.primary.node for slot in work.standing.slots.values()]
    node = next((node for node in primaries if node in nodes), nodes[0] if nodes else "")
    for network, address in work.fixed:
        if not address_problem(batch, work.doc, network, address):
            batch.nets.fix(network, address, node)


def unusable(subnet: str, slices: Mapping[str, str], address: str) -> str:
    """Why no container of the network can ever have the address, or "". `slices`: node -> CIDR."""
    return _not_in(subnet, address) or _is_nodes_own(slices, address)


def _not_in(subnet: str, address: str) -> str:
    try:
        number = IPv4Address(address)
    except ValueError:
        return "is no IPv4 address"
    net = ip_network(subnet, strict=False)
    if number not in net:
        return f"is not in its subnet {subnet}"
    if number == net.network_address:
        return f"is the first of its subnet {subnet}, which stands for the whole"
    return f"is the broadcast address of its subnet {subnet}" if number == net.broadcast_address else ""


def _is_nodes_own(slices: Mapping[str, str], address: str) -> str:
    """The first two addresses and the last of each slice are the node's own."""
    number = int(IPv4Address(address))
    for node, cidr in slices.items():
        if holds(cidr, address):
            net = ip_network(cidr)
            if number in (int(net.network_address), int(net.network_address) + 1, int(net.broadcast_address)):
                return f"is one of those that {node} needs itself"
    return ""


def _is_anothers(batch: Batch, doc: ServiceDoc, network: str, address: str) -> str:
    taken = batch.index.taken(batch.view)
    for name in taken.vips.get(network, {}).get(address, ()):
        return f"is that of service {name}"
    for name in taken.fixed.get(network, {}).get(address, ()):
        other = batch.view.services.get(name)
        if other is not None and name != doc.spec.name and (other.created_ms, name) < (doc.created_ms, doc.spec.name):
            return f"is asked for by {name} already"
    for node, cidr in batch.nets.slices(network).items():
        status = batch.view.statuses.get(node) if holds(cidr, address) else None
        for row in status.replicas if status else ():
            places = [(on, told.partition("/")[0]) for on, told in row.addresses]
            if row.service_id != doc.id and (network, address) in places:
                return f"is in use by another container on {node}"
    return ""
