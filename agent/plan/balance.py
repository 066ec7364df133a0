"""What one service, or one replica with ports of its own, asks of the node's load balancing tables.

Rules: pure. A frontend is what clients connect to: a service's address on one bridge, or a published port of this node. Its
backends stand in numbered slots, one each; a new connection takes a random slot. Who stays keeps its slot, so one replica more
or less changes a few elements, however many there are. A service's address without a ready replica has no element (the subnet's
unreachable route answers); a published port without one refuses; both hold their callers while the service sleeps. What is a
key here is a named tuple: there may be tens of thousands of them, and these are compared in half the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, NamedTuple

from agent.plan.names import EndpointName, ServiceNames
from agent.plan.network import LinkPlan
from model.addresses import embedded, embedded_network
from model.spec import Port

INGRESS = "ingress"
ANY_ADDRESS = frozenset({"", "0.0.0.0", "::"})


class Vip(NamedTuple):
    """A service's address, IPv4 or IPv6, for whom stands on `bridge`."""

    bridge: str
    address: str


class Published(NamedTuple):
    """A port of this node. `host_ip` empty: all its addresses of that family (4 or 6)."""

    protocol: str
    published: int
    host_ip: str = ""
    family: int = 4


Frontend = Vip | Published


class Backend(NamedTuple):
    """Where a slot sends to; `port` 0 keeps the client's choice. `replica`, its IPv4 address, tells those apart that stand
    behind one address of another node, so that this node gets their share."""

    replica: str
    address: str
    port: int = 0


HELD: Final = (Backend("", "held"),)
"""The slots of a frontend whose callers are held: what they send is dropped and noticed, until a replica is ready. A TCP client
sends again every second, and is served as if nothing had been."""


class Member(NamedTuple):
    """One element of a plain set of the table."""

    of: str
    key: str


class Row(NamedTuple):
    """Whose traffic an address is. `address`: the replica's IPv4 address, also for its IPv6 one."""

    service_id: str
    service: str
    replica: str
    address: str


@dataclass(frozen=True, slots=True)
class Share:
    """Everything one service asks of the tables. `counted`: addresses whose traffic is counted."""

    frontends: Mapping[Frontend, tuple[Backend, ...]] = field(default_factory=dict)
    members: frozenset[Member] = frozenset()
    counted: Mapping[str, Row] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port that one replica publishes on its own node. `prefix6`: of the network its address is on."""

    protocol: str
    published: int
    target: int
    address: str
    host_ip: str = ""
    prefix6: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """What a share depends on besides the service: who this node is and which networks it takes part in."""

    node: str
    plans: Mapping[str, LinkPlan]
    prefix6: Mapping[str, str]

    def reaches(self, endpoint: EndpointName) -> bool:
        """Whether this node has a way to the replica's own address."""
        plan = self.plans.get(endpoint.network)
        return plan is not None and (endpoint.node == self.node or bool(plan.vxlan))

    def subnets(self) -> list[IPv4Network | IPv6Network]:
        """Of the networks, of both families."""
        found: list[IPv4Network | IPv6Network] = [IPv4Network(plan.subnet) for plan in self.plans.values()]
        prefixed = ((plan, self.prefix6.get(name, "")) for name, plan in self.plans.items())
        return found + [IPv6Network(embedded_network(prefix6, plan.subnet)) for plan, prefix6 in prefixed if prefix6]


def own_member(address: str) -> Member:
    """A local replica's address: what it sends to itself by way of a service must come from somebody else's."""
    return Member("own6" if ":" in address else "own", f"{address} . {address}")


def inside(plan: LinkPlan, prefix6: str) -> Iterator[Member]:
    """Sources that may enter the network's tunnel as they are."""
    if plan.vxlan:
        yield Member("inside", f'"{plan.vxlan}" . {plan.subnet}')
        if prefix6:
            yield Member("inside6", f'"{plan.vxlan}" . {embedded_network(prefix6, plan.subnet)}')


def network_share(service: ServiceNames, network: str, view: View) -> Share:
    """One service on a network this node takes part in: its address there."""
    plan = view.plans.get(network)
    if plan is None or not service.vip:
        return Share()
    frontends: dict[Frontend, tuple[Backend, ...]] = {}
    members: set[Member] = set()
    counted: dict[str, Row] = {}
    for prefix6 in ("", view.prefix6.get(network, ""))[: 2 if view.prefix6.get(network) else 1]:
        ready = tuple(Backend(e.address, _as(prefix6, e.address)) for e in service.endpoints if e.ready)
        frontends[Vip(plan.bridge, _as(prefix6, service.vip))] = ready or _nobody(service)
        for endpoint in service.endpoints:
            _note(service, endpoint, _as(prefix6, endpoint.address), view, members, counted)
    return Share(frontends, frozenset(members), counted)


def ingress_share(service: ServiceNames, view: View) -> Share:
    """One service's published ports of mode ingress."""
    frontends: dict[Frontend, tuple[Backend, ...]] = {}
    members: set[Member] = set()
    counted: dict[str, Row] = {}
    for port in service.ports:
        if port.mode == "ingress" and port.published:
            for family in families(port.host_ip):
                ready = tuple(_port_backends(service.endpoints, port, family, view))
                frontends[port_frontend(port.protocol, port.published, port.host_ip, family)] = ready or _nobody(service)
    for endpoint in service.endpoints if frontends else ():
        if view.reaches(endpoint):
            prefix6 = view.prefix6.get(endpoint.network, "")
            for address in (endpoint.address, _as(prefix6, endpoint.address))[: 2 if prefix6 else 1]:
                _note(service, endpoint, address, view, members, counted)
        elif endpoint.underlay:
            members.add(Member("underlays", endpoint.underlay))
    return Share(frontends, frozenset(members), counted)


def host_share(sandbox: str, ports: Iterable[HostPort]) -> Share:
    """Ports that a replica publishes on its own node only."""
    frontends: dict[Frontend, tuple[Backend, ...]] = {}
    members: set[Member] = set()
    counted: dict[str, Row] = {}
    for port in ports:
        for family in families(port.host_ip):
            addresses = [port.address] if family == 4 else [embedded(port.prefix6, port.address)] if port.prefix6 else []
            frontend = port_frontend(port.protocol, port.published, port.host_ip, family)
            frontends[frontend] = tuple(Backend(port.address, address, port.target) for address in addresses)
            members |= {own_member(address) for address in addresses}
            counted |= {address: Row("", "", sandbox, port.address) for address in addresses}
    return Share(frontends, frozenset(members), counted)


def families(host_ip: str) -> tuple[int, ...]:
    """The address families a published port is of; none of what is no address, and of one that means something on one link
    only (`fe80::1%eth0`)."""
    if host_ip in ANY_ADDRESS:
        return (4, 6)
    try:
        address = ip_address(host_ip)
    except ValueError:
        return ()
    return () if "%" in host_ip else (address.version,)


def port_frontend(protocol: str, published: int, host_ip: str, family: int) -> Published:
    """The address as the kernel would write it, so that what an earlier agent left is recognized."""
    return Published(protocol, published, "" if host_ip in ANY_ADDRESS else str(ip_address(host_ip)), family)


def _port_backends(endpoints: Iterable[EndpointName], port: Port, family: int, view: View) -> Iterator[Backend]:
    """A replica itself where this node can reach it, else its node, which balances again under the same number. Another
    node's own addresses say nothing about a port of one particular address here."""
    for endpoint in endpoints:
        if not endpoint.ready or (port.local and endpoint.node != view.node):
            continue
        if view.reaches(endpoint):
            prefix6 = view.prefix6.get(endpoint.network, "")
            if family == 4:
                yield Backend(endpoint.address, endpoint.address, port.target)
            elif prefix6:
                yield Backend(endpoint.address, embedded(prefix6, endpoint.address), port.target)
        elif family == 4 and endpoint.underlay and endpoint.node != view.node and port.host_ip in ANY_ADDRESS:
            yield Backend(endpoint.address, endpoint.underlay, port.published)


def _nobody(service: ServiceNames) -> tuple[Backend, ...]:
    return HELD if service.sleeping else ()


def _as(prefix6: str, address: str) -> str:
    return embedded(prefix6, address) if prefix6 else address


def _note(
    service: ServiceNames,
    endpoint: EndpointName,
    address: str,
    view: View,
    members: set[Member],
    counted: dict[str, Row],
) -> None:
    counted[address] = Row(service.service_id, service.name, endpoint.replica, endpoint.address)
    if endpoint.node == view.node:
        members.add(own_member(address))


def rearranged(slots: tuple[Backend, ...], wanted: Iterable[Backend]) -> tuple[Backend, ...]:
    """The slots after a change: who stays keeps its slot, newcomers take the freed ones, then the last ones move up."""
    missing = dict.fromkeys(wanted)
    after: list[Backend | None] = []
    for backend in slots:
        after.append(backend if backend in missing else None)
        missing.pop(backend, None)
    gaps = [slot for slot, backend in enumerate(after) if backend is None]
    for newcomer, slot in zip(missing, gaps, strict=False):
        after[slot] = newcomer
    after += list(missing)[len(gaps) :]
    gaps = gaps[len(missing) :]
    while gaps:
        last = after.pop()
        if len(after) == gaps[-1]:
            gaps.pop()
        else:
            after[gaps.pop(0)] = last
    return tuple(backend for backend in after if backend is not None)
