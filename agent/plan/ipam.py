"""Addresses inside a node's slice.

Rules: pure. The network address belongs to the VXLAN device, the first host to the bridge, the last to broadcast; the rest to
containers. Addresses are handed out in turn, so that a freed one is used again as late as possible.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection


def next_address(slice_cidr: str, taken: Collection[str], last: str) -> str | None:
    """The next free address after `last` (empty: from the beginning), going round; None when the slice is full."""
    net = ipaddress.IPv4Network(slice_cidr)
    first, end = int(net.network_address) + 2, int(net.broadcast_address)
    count = end - first
    if count <= 0 or len(taken) >= count + 2:
        return None
    start = int(ipaddress.IPv4Address(last)) + 1 if last else first
    for step in range(count):
        candidate = first + (start - first + step) % count
        address = str(ipaddress.IPv4Address(candidate))
        if address not in taken:
            return address
    return None


def refusal(slice_cidr: str, taken: Collection[str], address: str) -> str:
    """Why a container of this node cannot have an address its spec asks for; empty when it can."""
    net = ipaddress.IPv4Network(slice_cidr)
    try:
        wanted = ipaddress.IPv4Address(address)
    except ValueError:
        return "it is no IPv4 address"
    if not int(net.network_address) + 2 <= int(wanted) < int(net.broadcast_address):
        return f"it is not one of this node's addresses on it, {slice_cidr} without the first two and the last"
    return "another container on this node has it" if str(wanted) in taken else ""
