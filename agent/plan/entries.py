"""What the kernel must hold for the networks beside links: addresses, routes, neighbours, forwarding entries, as plain values.

Rules: pure. What should be there and what is there are sets of the same values, so that a change of plan and a repair are both
the difference of two sets. Links go by name; numbers are looked up when a request is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_interface

from agent.plan import netlink
from agent.plan.netlink import Request
from agent.plan.netlink_read import NeighbourRow, RouteRow
from agent.plan.network import LINK_PREFIXES, LinkPlan, Remote
from model.addresses import embedded, embedded_network

_PORT_PREFIX = LINK_PREFIXES[2]


@dataclass(frozen=True, slots=True)
class Address:
    link: str
    address: str

    def __str__(self) -> str:
        return f"address {self.address}"


@dataclass(frozen=True, slots=True)
class Route:
    """`via` empty: on the link itself; `link` empty too: nowhere, so that it is refused and not sent somewhere else."""

    destination: str
    via: str = ""
    link: str = ""

    def __str__(self) -> str:
        return f"route {self.destination}" if self.link else f"unreachable route {self.destination}"


@dataclass(frozen=True, slots=True)
class Neighbour:
    link: str
    address: str
    mac: str

    def __str__(self) -> str:
        return f"neighbour {self.address}"


@dataclass(frozen=True, slots=True)
class Forward:
    """Frames for `mac`: on a VXLAN device to the node at `to`, on a container's port (`to` empty) out of it."""

    link: str
    mac: str
    to: str = ""

    def __str__(self) -> str:
        return f"fdb entry {self.mac}"


Entry = Address | Route | Neighbour | Forward


def wanted(plan: LinkPlan) -> tuple[Entry, ...]:
    """Everything of one network but its containers, in the order it can be made in."""
    rows: list[Entry] = [Address(plan.bridge, plan.gateway), Route(_net(plan.gateway), "", plan.bridge)]
    rows += [Route(plan.subnet)]
    if plan.prefix6:
        rows += [Address(plan.bridge, plan.gateway6), Route(_net(plan.gateway6), "", plan.bridge), Route(plan.subnet6)]
    if plan.vxlan:
        rows.append(Address(plan.vxlan, f"{plan.vtep}/32"))
    if plan.vtep6:
        rows.append(Address(plan.vxlan, f"{plan.vtep6}/128"))
    rows += _hosts(plan, plan.fixed, "", "", plan.bridge)
    for remote in plan.remotes:
        rows += _remote(plan, remote)
    return tuple(rows)


def _net(interface: str) -> str:
    return str(ip_interface(interface).network)


def _remote(plan: LinkPlan, remote: Remote) -> Iterator[Entry]:
    yield Neighbour(plan.vxlan, remote.vtep, remote.mac)
    yield Forward(plan.vxlan, remote.mac, remote.underlay)
    yield Route(remote.slice, remote.vtep, plan.vxlan)
    if remote.vtep6:
        yield Neighbour(plan.vxlan, remote.vtep6, remote.mac)
        yield Route(remote.slice6, remote.vtep6, plan.vxlan)
    yield from _hosts(plan, remote.addresses, remote.vtep, remote.vtep6, plan.vxlan)


def _hosts(plan: LinkPlan, addresses: Iterable[str], via: str, via6: str, link: str) -> Iterator[Entry]:
    """Routes to single addresses."""
    for address in addresses:
        yield Route(f"{address}/32", via, link)
        if plan.prefix6:
            yield Route(embedded_network(plan.prefix6, f"{address}/32"), via6, link)


def of_container(plan: LinkPlan, link: str, address: str, mac: str) -> tuple[Entry, ...]:
    """What an interface of a container needs on the node: nobody else can claim its address (without length) or its MAC."""
    rows: tuple[Entry, ...] = (Forward(link, mac), Neighbour(plan.bridge, address, mac))
    return (*rows, Neighbour(plan.bridge, embedded(plan.prefix6, address), mac)) if plan.prefix6 else rows


def key(entry: Entry) -> tuple[str, ...]:
    """What there can be one of: putting an entry replaces another with the same key."""
    match entry:
        case Address(link, address):
            return ("address", link, address)
        case Route(destination, _, link):
            return ("route", destination, "there" if link else "")
        case Neighbour(link, address, _):
            return ("neighbour", link, address)
        case Forward(link, mac, to):
            return ("forward", link if to else "", mac)


def put(entry: Entry, index: Callable[[str], int]) -> Request:
    match entry:
        case Address(link, address):
            return netlink.add_address(index(link), address)
        case Route(destination, via, link):
            return netlink.put_route(destination, via, index(link) if link else 0, onlink=bool(via))
        case Neighbour(link, address, mac):
            return netlink.put_neighbour(address, mac, index(link))
        case Forward(link, mac, to):
            return netlink.put_fdb(mac, to, index(link))


def drop(entry: Entry, index: Callable[[str], int]) -> Request:
    match entry:
        case Address(link, address):
            return netlink.delete_address(index(link), address)
        case Route(destination, via, link):
            return netlink.delete_route(destination, via, index(link) if link else 0)
        case Neighbour(link, address, _):
            return netlink.delete_neighbour(address, index(link))
        case Forward(link, mac, to):
            return netlink.delete_fdb(mac, to, index(link))


def addresses_there(names: Mapping[int, str], rows: Iterable[tuple[int, str]]) -> Iterator[Entry]:
    """Of our own links; link-local ones are the kernel's."""
    return (Address(names[index], row) for index, row in rows if index in names and not ip_interface(row).is_link_local)


def routes_there(names: Mapping[int, str], rows: Iterable[RouteRow], *, all_protocols: bool) -> Iterator[Entry]:
    """By our own links and nowhere; those the kernel or somebody else made only with `all_protocols`."""
    for row in rows:
        mine = row.protocol == netlink.RTPROT_SHOAL
        if row.table == netlink.RT_TABLE_MAIN and (mine or all_protocols) and (row.index in names or (mine and not row.index)):
            yield Route(row.destination, row.gateway, names.get(row.index, ""))


def neighbours_there(names: Mapping[int, str], rows: Iterable[NeighbourRow]) -> Iterator[Entry]:
    """Permanent entries of our own links."""
    for row in rows:
        if row.index in names and row.state & netlink.NUD_PERMANENT:
            yield Neighbour(names[row.index], row.address, row.mac)


def forwards_there(names: Mapping[int, str], rows: Iterable[NeighbourRow]) -> Iterator[Entry]:
    """Of VXLAN devices those with a destination, of containers' ports those that were put there."""
    for row in rows:
        name = names.get(row.index, "")
        if name.startswith(_PORT_PREFIX) and row.state & netlink.NUD_NOARP:
            yield Forward(name, row.mac)
        elif name and row.address:
            yield Forward(name, row.mac, row.address)
