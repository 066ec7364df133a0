"""What the kernel answers to route netlink requests.

Rules: pure; netlink has the requests. Answers come in plain values, so that what is there compares with what should be.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agent.plan import netlink
from agent.plan.network import LINK_PREFIXES


@dataclass(frozen=True, slots=True)
class Link:
    """`port`, `conf` (as netlink.CONTAINER_PORT and LINK_CONF) and `vxlan` (VNI, local address, port) are read of our own."""

    index: int
    name: str
    mtu: int
    up: bool
    mac: str
    master: int = 0
    port: tuple[int, ...] = ()
    conf: tuple[int, ...] = ()
    vxlan: tuple[int, str, int] = (0, "", 0)


@dataclass(frozen=True, slots=True)
class RouteRow:
    """`index` 0: no link (unreachable)."""

    destination: str
    gateway: str
    index: int
    protocol: int = 0
    table: int = netlink.RT_TABLE_MAIN


@dataclass(frozen=True, slots=True)
class NeighbourRow:
    index: int
    address: str
    mac: str
    state: int
    flags: int


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, sequence, payload) of each message in one datagram."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data, offset)
        if length < 16:
            return
        yield kind, sequence, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def parse_link(payload: bytes) -> Link:
    _, _, index, flags, _ = struct.unpack_from("=BxHiII", payload)
    found = attributes(payload[16:])
    name = found.get(netlink.IFLA_IFNAME, b"").rstrip(b"\0").decode()
    ours = name.startswith(LINK_PREFIXES)
    info = attributes(found.get(netlink.IFLA_LINKINFO, b"")) if ours else {}
    return Link(
        index,
        name,
        _number(found, netlink.IFLA_MTU),
        bool(flags & netlink.IFF_UP),
        found.get(netlink.IFLA_ADDRESS, b"").hex(":"),
        _number(found, netlink.IFLA_MASTER),
        _port(info),
        _conf(found.get(netlink.IFLA_AF_SPEC, b"")) if ours else (),
        _vxlan(info),
    )


def _number(found: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(found.get(kind, b""), "little")


def _port(info: dict[int, bytes]) -> tuple[int, ...]:
    data = info.get(netlink.IFLA_INFO_SLAVE_DATA)
    if data is None:
        return ()
    found = attributes(data)
    return tuple(_number(found, kind) for kind in netlink.CONTAINER_PORT)


def _conf(data: bytes) -> tuple[int, ...]:
    values = attributes(attributes(data).get(netlink.AF_INET, b"")).get(netlink.IFLA_INET_CONF, b"")
    numbers = struct.unpack(f"={len(values) // 4}I", values)
    return tuple(numbers[kind - 1] for kind in netlink.LINK_CONF if kind <= len(numbers))


def _vxlan(info: dict[int, bytes]) -> tuple[int, str, int]:
    if info.get(netlink.IFLA_INFO_KIND, b"").rstrip(b"\0") != b"vxlan":
        return (0, "", 0)
    found = attributes(info.get(netlink.IFLA_INFO_DATA, b""))
    local = found.get(netlink.IFLA_VXLAN_LOCAL, b"")
    port = int.from_bytes(found.get(netlink.IFLA_VXLAN_PORT, b""), "big")
    return _number(found, netlink.IFLA_VXLAN_ID), str(ipaddress.IPv4Address(local)) if local else "", port


def parse_link_counts(answers: bytes) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    """Indexes of links, and of each the bytes that it received and sent. `answers`: as the kernel gives them, with their heads,
    all of one shape. Raises ValueError when they are not."""
    length = int.from_bytes(answers[:4], "little")
    if length < _LINK_COUNTS_BYTES or len(answers) % length:
        raise ValueError("counts of links of several shapes")
    shape = struct.Struct(f"=I16xI4xHH16xQQ{length - _LINK_COUNTS_BYTES}x")
    lengths, indexes, sizes, kinds, received, sent = zip(*shape.iter_unpack(answers), strict=True)
    if {*lengths, *kinds} != {length, netlink.IFLA_STATS_LINK_64} or min(sizes) < 4 + 32:
        raise ValueError("counts of links of several shapes")
    return indexes, list(zip(received, sent, strict=True))


_LINK_COUNTS_BYTES: Final = 16 + 12 + 4 + 32
"""Netlink's head, that of the message, that of the attribute, and in it the packets and bytes that were received and sent."""


def parse_address(payload: bytes) -> tuple[int, str]:
    """(link index, address/prefix)."""
    _, length, _, _, index = struct.unpack_from("=BBBBI", payload)
    found = attributes(payload[8:])
    ip = ipaddress.ip_address(found.get(netlink.IFA_LOCAL) or found[netlink.IFA_ADDRESS])
    return index, f"{ip}/{length}"


def parse_route(payload: bytes) -> RouteRow:
    family, length, _, _, table, protocol = struct.unpack_from("=BBBBBB", payload)
    found = attributes(payload[12:])
    nothing = bytes(16 if family == netlink.AF_INET6 else 4)
    destination = ipaddress.ip_address(found.get(netlink.RTA_DST, nothing))
    gateway = str(ipaddress.ip_address(found[netlink.RTA_GATEWAY])) if netlink.RTA_GATEWAY in found else ""
    kind = payload[7]
    index = 0 if kind == netlink.RTN_UNREACHABLE else _number(found, netlink.RTA_OIF)  # IPv6 says loopback
    return RouteRow(f"{destination}/{length}", gateway, index, protocol, _number(found, netlink.RTA_TABLE) or table)


def parse_neighbour(payload: bytes) -> NeighbourRow:
    """Also of a forwarding table; the address is empty where it has none."""
    _, index, state, flags, _ = struct.unpack_from("=BxxxiHBB", payload)
    found = attributes(payload[12:])
    raw = found.get(netlink.NDA_DST, b"")
    address = str(ipaddress.ip_address(raw)) if len(raw) in (4, 16) else ""
    return NeighbourRow(index, address, found.get(netlink.NDA_LLADDR, b"").hex(":"), state, flags)
