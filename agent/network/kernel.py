"""What the driver asks of the kernel: links and entries of networks, ports of containers, and what is there of all that.

Rules: synchronous; called in threads by one caller at a time. Looking is one dump of each kind for all
networks. Making something that is there already changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, collapse_addresses
from typing import Final

from agent.network import sysctls
from agent.network.rtnl import Netlink
from agent.plan import entries, netlink
from agent.plan.attachment import Interface
from agent.plan.entries import Entry
from agent.plan.netlink_read import Link
from agent.plan.network import LINK_PREFIXES, VXLAN_PORT, LinkPlan
from model.errors import RuntimeFailed

_DEFAULT_MTU: Final = 1500
_IPV6_MTU_MIN: Final = 1280
_ROUTES_MAX: Final = 256
_MACHINES_OWN: Final = tuple(map(IPv4Network, ("127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "0.0.0.0/8")))


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen in the kernel. `there`: entries by our links, whoever made them; `ours`: those we would have made."""

    links: Mapping[str, Link]
    there: frozenset[Entry]
    ours: frozenset[Entry]


def look(nl: Netlink) -> Sight:
    links = nl.links()
    names = {link.index: name for name, link in links.items() if name.startswith(LINK_PREFIXES)}
    routes = nl.routes(netlink.AF_UNSPEC)
    common = [
        *entries.addresses_there(names, nl.addresses(netlink.AF_UNSPEC)),
        *entries.neighbours_there(names, nl.neighbours(netlink.AF_UNSPEC)),
        *entries.forwards_there(names, nl.neighbours(netlink.AF_BRIDGE)),
    ]
    return Sight(
        links,
        frozenset(common) | frozenset(entries.routes_there(names, routes, all_protocols=True)),
        frozenset(common) | frozenset(entries.routes_there(names, routes, all_protocols=False)),
    )


def underlay_mtu(nl: Netlink, underlay: str) -> int:
    """MTU of the link that carries the node's underlay address; 1500 when there is none."""
    indexes = {index for index, address in nl.addresses() if address.split("/")[0] == underlay}
    found = [link.mtu for link in nl.links().values() if link.index in indexes and link.name != "lo"]
    return min(found, default=_DEFAULT_MTU)


def own_routes(nl: Netlink) -> tuple[str, ...]:
    """IPv4 subnets the machine itself has routes to: what no network of ours may overlap. Neighbouring ones are told as one, of
    very many the largest."""
    names = {link.index: link.name for link in nl.links().values()}
    found = set()
    for route in nl.routes():
        foreign = route.protocol != netlink.RTPROT_SHOAL and not names.get(route.index, "").startswith(LINK_PREFIXES)
        net = IPv4Network(route.destination)
        if route.table == netlink.RT_TABLE_MAIN and foreign and net.prefixlen and not any(map(net.subnet_of, _MACHINES_OWN)):
            found.add(net)
    largest = sorted(collapse_addresses(found), key=lambda net: net.prefixlen)[:_ROUTES_MAX]
    return tuple(str(net) for net in sorted(largest))


def has_ipv6(plan: LinkPlan) -> bool:
    """Whether links of this network have IPv6 settings at all."""
    return sysctls.IPV6 and plan.mtu >= _IPV6_MTU_MIN


def link_faults(plan: LinkPlan, links: Mapping[str, Link], underlay: str) -> list[str]:
    """What is wrong with the network's own links, in words."""
    faults = []
    for name, mac in _devices(plan):
        link = links.get(name)
        if link is None:
            faults.append(f"link {name} was gone")
        elif not link.up:
            faults.append(f"link {name} was down")
        elif (link.mac, link.mtu, link.conf) != (mac, plan.mtu, tuple(netlink.LINK_CONF.values())):
            faults.append(f"link {name} had other settings")
        elif name == plan.vxlan and link.vxlan != (plan.vni, underlay, VXLAN_PORT):
            faults.append(f"link {name} was another network's")
    return faults


def _devices(plan: LinkPlan) -> list[tuple[str, str]]:
    return [(plan.bridge, plan.bridge_mac)] + ([(plan.vxlan, plan.vtep_mac)] if plan.vxlan else [])


def make_links(nl: Netlink, plan: LinkPlan, links: Mapping[str, Link], underlay: str) -> None:
    """The network's bridge and VXLAN device as they should be. `links`: those there are."""
    requests = [netlink.add_bridge(plan.bridge, plan.bridge_mac)]
    if plan.vxlan:
        found = links.get(plan.vxlan)
        if found is not None and found.vxlan != (plan.vni, underlay, VXLAN_PORT):
            requests.append(netlink.delete_link(plan.vxlan))
        requests.append(netlink.add_vxlan(plan.vxlan, plan.vtep_mac, plan.mtu, plan.vni, underlay, VXLAN_PORT))
    nl.send(requests)
    if plan.prefix6:
        for name, _ in _devices(plan):
            sysctls.allow_ipv6(name)
    devices = _devices(plan)
    nl.send([request for name, mac in devices for request in netlink.set_link(name, mac, plan.mtu, ipv6=has_ipv6(plan))])
    if not nl.index(plan.bridge):
        raise RuntimeFailed(f"network {plan.name}: bridge {plan.bridge} could not be made")


def change(nl: Netlink, old: Iterable[Entry], new: Sequence[Entry]) -> None:
    """From the entries of one plan to those of the next."""
    before, after = dict.fromkeys(old), dict.fromkeys(new)
    replaced = {entries.key(entry) for entry in after}
    index = _Indexes(nl)
    drops = [entry for entry in before if entry not in after and entries.key(entry) not in replaced]
    nl.send([entries.drop(entry, index) for entry in reversed(drops)])
    nl.send([entries.put(entry, index) for entry in after if entry not in before])


class _Indexes:
    """Link numbers, each looked up once."""

    def __init__(self, nl: Netlink) -> None:
        self._nl = nl
        self._known: dict[str, int] = {}

    def __call__(self, name: str) -> int:
        if name not in self._known:
            self._known[name] = self._nl.index(name)
        return self._known[name]


def remove_network(nl: Netlink, plan: LinkPlan) -> None:
    """Links take their entries along; the routes to nowhere have none."""
    nowhere = [entry for entry in entries.wanted(plan) if isinstance(entry, entries.Route) and not entry.link]
    names = [name for name, _ in _devices(plan)]
    nl.send([*map(netlink.delete_link, names), *(entries.drop(entry, lambda _: 0) for entry in nowhere)])


def of_interfaces(plans: Mapping[str, LinkPlan], interfaces: Iterable[Interface]) -> list[Entry]:
    """The entries of containers' interfaces, for the networks there are."""
    found: list[Entry] = []
    for row in interfaces:
        if plan := plans.get(row.network):
            found += entries.of_container(plan, row.link, row.address, row.mac)
    return found


def port_fault(found: Interface, links: Mapping[str, Link], bridge: int) -> str:
    """What is wrong with the host end of a container's link; empty when nothing."""
    link = links.get(found.link)
    if link is None:
        return "was gone"
    if link.master != bridge:
        return "was not in its bridge"
    if not link.up:
        return "was down"
    return "" if link.port == tuple(netlink.CONTAINER_PORT.values()) else "was not isolated"


def stray_links(links: Collection[str], plans: Iterable[LinkPlan]) -> list[str]:
    """Devices of networks there are no longer."""
    known = {name for plan in plans for name, _ in _devices(plan)}
    return [name for name in sorted(links) if name.startswith(LINK_PREFIXES[:2]) and name not in known]


def stray_ports(links: Collection[str], interfaces: Iterable[Interface]) -> list[str]:
    """Host ends of links into containers that are held no longer."""
    known = {found.link for found in interfaces}
    return [name for name in sorted(links) if name.startswith(LINK_PREFIXES[2]) and name not in known]
