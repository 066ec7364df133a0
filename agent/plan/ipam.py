"""Addresses inside a node's slice.

Rules: pure. The network address belongs to the VXLAN device, the first host to the bridge, the last to broadcast; the rest to
containers. Addresses are handed out in turn, so that a freed one is used again as late as possible, and not before it has
rested. Fixed addresses, of this node or of others, go to nobody who does not ask for them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pool:
    """One network's addresses on this node. `fixed`: asked for by this node's containers; `elsewhere`: by other nodes';
    `resting`: free, but somebody may still send there."""

    slice: str
    taken: Collection[str] = ()
    resting: Collection[str] = ()
    fixed: Collection[str] = ()
    elsewhere: Collection[str] = ()


def choose(pool: Pool, asked: str, last: str) -> tuple[str, str]:
    """(the address, empty) or (empty, why there is none)."""
    if asked:
        why = refusal(pool, asked)
        return ("", f"address {asked} cannot be given: {why}") if why else (str(ipaddress.IPv4Address(asked)), "")
    address = next_address(pool.slice, {*pool.taken, *pool.resting, *pool.fixed, *pool.elsewhere}, last)
    if address is not None:
        return address, ""
    resting = len(set(pool.resting) - set(pool.taken))
    rest = f"; {resting} of them rest until every node forgot them" if resting else ""
    return "", f"every address of this node's slice {pool.slice} is taken{rest}"


def next_address(slice_cidr: str, taken: Collection[str], last: str) -> str | None:
    """The next free address after `last` (empty: from the beginning), going round; None when the slice is full."""
    net = ipaddress.IPv4Network(slice_cidr)
    first, end = int(net.network_address) + 2, int(net.broadcast_address)
    count = end - first
    if count <= 0:
        return None
    start = int(ipaddress.IPv4Address(last)) + 1 if last else first
    for step in range(count):
        candidate = first + (start - first + step) % count
        address = str(ipaddress.IPv4Address(candidate))
        if address not in taken:
            return address
    return None


def refusal(pool: Pool, address: str) -> str:
    """Why a container of this node cannot have an address its spec asks for; empty when it can."""
    net = ipaddress.IPv4Network(pool.slice)
    try:
        wanted = ipaddress.IPv4Address(address)
    except ValueError:
        return "it is no IPv4 address"
    if str(wanted) in pool.taken:
        return "another container on this node has it"
    if str(wanted) in pool.fixed:
        return ""
    if str(wanted) in pool.elsewhere:
        return "a container on another node has it"
    if not int(net.network_address) + 2 <= int(wanted) < int(net.broadcast_address):
        return f"it is not one of this node's addresses on it, {pool.slice} without the first two and the last"
    return ""


def network_of(interface: str) -> str:
    """`10.1.2.1/24` lies in `10.1.2.0/24`."""
    return str(ipaddress.ip_interface(interface).network)
