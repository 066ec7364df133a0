"""Addresses that follow from others: IPv6 and MAC from IPv4, and the part of a subnet that is kept for services.

Rules: pure; controller and agents reckon alike. A network's IPv6 prefix is a /96, the last 32 bits are the IPv4 address: so
slices, gateways and services' addresses of IPv6 need no bookkeeping of their own.
"""

from __future__ import annotations

import ipaddress


def embedded(prefix6: str, address: str) -> str:
    """The IPv6 address of whoever has the IPv4 `address`: `embedded("fd00:1::/96", "10.64.1.2")` is `fd00:1::a40:102`."""
    base = int(ipaddress.IPv6Network(prefix6).network_address)
    return str(ipaddress.IPv6Address(base | int(ipaddress.IPv4Address(address))))


def embedded_network(prefix6: str, cidr: str) -> str:
    """The IPv6 network of an IPv4 one: `10.64.1.0/24` becomes a /120."""
    net = ipaddress.IPv4Network(cidr)
    return f"{embedded(prefix6, str(net.network_address))}/{96 + net.prefixlen}"


def service_range(subnet: str) -> str:
    """The part of `subnet` (CIDR) that services' addresses are taken from, its last quarter; nodes get no slice in it."""
    net = ipaddress.IPv4Network(subnet)
    prefix = min(32, net.prefixlen + 2)
    return str(list(net.subnets(new_prefix=prefix))[-1]) if net.prefixlen < 32 else str(net)


def mac_of(address: str, vni: int = 0) -> str:
    """A locally administered MAC that follows from the IPv4 address: 0a:VV:ip:ip:ip:ip (VV: low byte of the VNI)."""
    octets = ipaddress.IPv4Address(address.split("/")[0]).packed
    return ":".join(f"{byte:02x}" for byte in (0x0A, vni & 0xFF, *octets))
