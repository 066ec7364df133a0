"""The node's nftables rules as text: what containers may reach, who may reach them, and what they may send at all.

Rules: three tables of our own (`shoal` of inet, bridge and arp); nothing of other programs is touched. Chains and rules always
read the same; networks, containers and guarded addresses are elements of sets, and change by difference. Our links are known by
their names' beginnings. Networks of one node do not reach each other; a container reaches its network, what lies outside, and
on the node its own gateway and what any host offers, but never shoal's daemons. VXLAN frames are taken from peers only and
never from a container (with only the first rule, 20 of 20 frames injected by a container behind the node's masquerade arrived).
A container's frames carry its own MAC and addresses, or are dropped.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agent.plan.network import VXLAN_PORT, LinkPlan

TABLE: Final = "shoal"
INET: Final = f"inet {TABLE}"
BRIDGE: Final = f"bridge {TABLE}"
ARP: Final = f"arp {TABLE}"


@dataclass(frozen=True, slots=True)
class PortRow:
    """What may come in by one container's host link: this MAC with this address, and with its IPv6 address if it has one.

    Addresses are without prefix length.
    """

    link: str
    mac: str
    address: str
    address6: str = ""


@dataclass(frozen=True, slots=True)
class RulesWanted:
    """Everything the rules follow from. `guarded`: TCP addresses, `host:port`, that no container may reach."""

    plans: tuple[LinkPlan, ...] = ()
    ports: frozenset[PortRow] = frozenset()
    guarded: frozenset[str] = frozenset()


Place = tuple[str, str]
"""(table, set)"""
Contents = Mapping[Place, frozenset[str]]
"""The elements of every set."""

_SETS: Final[Mapping[Place, str]] = {
    (INET, "peers"): "type ipv4_addr;",
    (INET, "own"): "type ifname . ipv4_addr;",
    (INET, "own6"): "type ifname . ipv6_addr;",
    (INET, "subnets"): "type ipv4_addr; flags interval;",
    (INET, "subnets6"): "type ipv6_addr; flags interval;",
    (INET, "inside"): "type ifname . ipv4_addr . ifname . ipv4_addr; flags interval;",
    (INET, "inside6"): "type ifname . ipv6_addr . ifname . ipv6_addr; flags interval;",
    (INET, "internal"): "type ifname;",
    (INET, "guarded"): "type ipv4_addr . inet_service;",
    (INET, "guarded6"): "type ipv6_addr . inet_service;",
    (INET, "guarded_ports"): "type inet_service;",
    (BRIDGE, "senders"): "type ifname . ether_addr . ipv4_addr;",
    (BRIDGE, "senders6"): "type ifname . ether_addr . ipv6_addr;",
}

# Guarded ports are closed on every address of the node: the daemons may listen on all of them. Published ports are not
# concerned, they are translated before. `own` lets through what a host offers on its containers' gateway, as names.
_INET_CHAINS: Final = f"""
 chain raw {{ type filter hook prerouting priority raw; policy accept;
  iifname "shv-*" drop
 }}
 chain input {{ type filter hook input priority -10; policy accept;
  iifname "shb-*" goto from-containers
  iifname "shx-*" goto from-overlays
  udp dport {VXLAN_PORT} ip saddr != @peers drop
 }}
 chain from-containers {{
  udp dport {VXLAN_PORT} drop
  fib daddr type local tcp dport @guarded_ports drop
  ct state established,related accept
  iifname . ip daddr @own meta l4proto {{ tcp, udp }} th dport 53 accept
  iifname . ip6 daddr @own6 meta l4proto {{ tcp, udp }} th dport 53 accept
  iifname . ip daddr @own meta l4proto icmp accept
  iifname . ip6 daddr @own6 meta l4proto ipv6-icmp accept
  icmpv6 type nd-neighbor-solicit accept
  iifname @internal drop
  iifname . ip daddr @own accept
  iifname . ip6 daddr @own6 accept
  ip daddr @subnets drop
  ip6 daddr @subnets6 drop
 }}
 chain from-overlays {{
  ct state established,related accept
  drop
 }}
 chain forward {{ type filter hook forward priority -10; policy accept;
  iifname "shb-*" udp dport {VXLAN_PORT} drop
  iifname "shb-*" ip daddr . tcp dport @guarded drop
  iifname "shb-*" ip6 daddr . tcp dport @guarded6 drop
  ct state established,related accept
  iifname . ip saddr . oifname . ip daddr @inside accept
  iifname . ip6 saddr . oifname . ip6 daddr @inside6 accept
  iifname @internal drop
  oifname @internal drop
  ct status dnat accept
  oifname "sh*" drop
  iifname "shx-*" drop
  iifname "shb-*" ct state invalid drop
 }}
 chain postrouting {{ type nat hook postrouting priority srcnat; policy accept;
  ip saddr @subnets oifname != "sh*" oifname != "lo" masquerade
  ip6 saddr @subnets6 oifname != "sh*" oifname != "lo" masquerade
 }}
"""

# A container asks for its gateway's MAC, and answers nobody: its own stands in the node's neighbour table.
_BRIDGE_CHAINS: Final = """
 chain prerouting { type filter hook prerouting priority -300; policy accept;
  iifname "shv-*" goto from-containers
 }
 chain from-containers {
  ether type arp iifname . ether saddr . arp saddr ip @senders iifname . arp saddr ether . arp saddr ip @senders accept
  ether type ip iifname . ether saddr . ip saddr @senders accept
  ether type ip6 iifname . ether saddr . ip6 saddr @senders6 goto from-containers6
  drop
 }
 chain from-containers6 {
  icmpv6 type { nd-neighbor-advert, nd-router-solicit, nd-router-advert, nd-redirect } drop
 }
"""

# Frames to 01:80:c2:00:00:0e pass by the bridge and its hooks, into the node's own stack: here ARP, IP in the chain `raw`.
_ARP_CHAINS: Final = """
 chain input { type filter hook input priority 0; policy accept;
  iifname "shv-*" drop
 }
"""
_CHAINS: Final[Mapping[str, str]] = {INET: _INET_CHAINS, BRIDGE: _BRIDGE_CHAINS, ARP: _ARP_CHAINS}


def contents(wanted: RulesWanted) -> Contents:
    """The elements of every set, as nft takes them."""
    found: dict[Place, set[str]] = {place: set() for place in _SETS}
    for plan in wanted.plans:
        for name, element in _of_network(plan):
            found[INET, name].add(element)
    for text in wanted.guarded:
        for name, element in _of_guarded(text):
            found[INET, name].add(element)
    return {place: frozenset(elements) for place, elements in found.items()} | _senders(wanted.ports)


def admitted(before: Contents, rows: Iterable[PortRow]) -> Contents:
    """With the senders of `rows` too."""
    return {**before, **{place: before[place] | rest for place, rest in _senders(rows).items()}}


def dismissed(before: Contents, rows: Iterable[PortRow]) -> Contents:
    """Without the senders of `rows`."""
    return {**before, **{place: before[place] - rest for place, rest in _senders(rows).items()}}


def tables(wanted: Contents) -> dict[str, str]:
    """For each of our tables the text that makes it where there is none."""
    return {table: f"table {table} {{\n{_sets(table, wanted)}{chains}}}" for table, chains in _CHAINS.items()}


def whole(wanted: Contents) -> str:
    """Our tables in the place of whatever was there, in one transaction."""
    return "\n".join([removal(), *tables(wanted).values()])


def difference(before: Contents, after: Contents) -> str:
    """The elements that go, then those that come; empty when there are none."""
    lines = [_change("delete", place, before[place] - after[place]) for place in _SETS]
    lines += [_change("add", place, after[place] - before[place]) for place in _SETS]
    return "\n".join(filter(None, lines))


def removal() -> str:
    """Takes the tables away, also when there are none."""
    return "\n".join(f"add table {table}\ndelete table {table}" for table in _CHAINS)


def _of_network(plan: LinkPlan) -> Iterator[tuple[str, str]]:
    """(set, element) of one network."""
    yield from (("peers", remote.underlay) for remote in plan.remotes)
    if plan.internal:
        yield "internal", f'"{plan.bridge}"'
    for six, gateway, subnet in (("", plan.gateway, plan.subnet), ("6", plan.gateway6, plan.subnet6)):
        if gateway and subnet:
            yield f"own{six}", f'"{plan.bridge}" . {gateway.split("/")[0]}'
            yield f"subnets{six}", subnet
            for come, go in _pairs(plan):
                yield f"inside{six}", f'"{come}" . {subnet} . "{go}" . {subnet}'


def _pairs(plan: LinkPlan) -> Sequence[tuple[str, str]]:
    """The ways within a network: neighbours on this node, to other nodes and from them. None from one node to another."""
    here = (plan.bridge, plan.bridge)
    return (here, (plan.bridge, plan.vxlan), (plan.vxlan, plan.bridge)) if plan.vxlan else (here,)


def _of_guarded(text: str) -> Iterator[tuple[str, str]]:
    """Of a host that is told by name only the port; of what is no TCP address nothing: one bad word must not cost all rules."""
    host, _, digits = text.rpartition(":")
    if not (digits.isascii() and digits.isdigit() and 0 < int(digits) < 65_536):
        return
    port = int(digits)
    yield "guarded_ports", str(port)
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return
    yield f"guarded{'6' if address.version == 6 else ''}", f"{address} . {port}"


def _senders(rows: Iterable[PortRow]) -> dict[Place, frozenset[str]]:
    rows = tuple(rows)
    return {
        (BRIDGE, "senders"): frozenset(f'"{row.link}" . {row.mac} . {row.address}' for row in rows),
        (BRIDGE, "senders6"): frozenset(f'"{row.link}" . {row.mac} . {row.address6}' for row in rows if row.address6),
    }


def _sets(table: str, wanted: Contents) -> str:
    return "".join(
        f" set {name} {{ {kind}{_elements(wanted[of, name])} }}\n" for (of, name), kind in _SETS.items() if of == table
    )


def _elements(elements: Iterable[str]) -> str:
    text = ", ".join(sorted(elements))
    return f" elements = {{ {text} }}" if text else ""


def _change(verb: str, place: Place, elements: Iterable[str]) -> str:
    text = ", ".join(sorted(elements))
    return f"{verb} element {place[0]} {place[1]} {{ {text} }}" if text else ""
