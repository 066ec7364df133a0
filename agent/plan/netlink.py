"""Route netlink requests and answers as bytes.

Rules: pure; sequence number and port are filled in by the transport (`seal`). Only what shoal needs. pyroute2 is the oracle
in the contract tests and builds the lab's underlay; the agent does not load it, since it costs 27 MB and 0.3 s at start
(docs/decisions). Shapes from linux/rtnetlink.h, linux/if_link.h, linux/neighbour.h, linux/veth.h.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_NEWADDR: Final = 20
RTM_GETADDR: Final = 22
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_GETROUTE: Final = 26
RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29
RTM_GETNEIGH: Final = 30

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
F_REQUEST: Final = 0x1
F_ACK: Final = 0x4
F_EXCL: Final = 0x200
F_REPLACE: Final = 0x100
F_CREATE: Final = 0x400
F_DUMP: Final = 0x300

AF_UNSPEC: Final = 0
AF_INET: Final = 2
AF_BRIDGE: Final = 7
IFF_UP: Final = 1

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 28
IFLA_GROUP: Final = 27
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
VETH_INFO_PEER = 1
IFLA_VXLAN_ID, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT = 1, 4, 7, 15
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
NDA_DST, NDA_LLADDR = 1, 2
RTNH_F_ONLINK: Final = 4
RT_TABLE_MAIN, RTPROT_SHOAL, RT_SCOPE_UNIVERSE, RTN_UNICAST = 254, 77, 0, 1
NUD_PERMANENT: Final = 0x80
NTF_SELF: Final = 0x02
NESTED: Final = 0x8000
GROUP_LEAVING: Final = 0x73686F6C
"""Links about to be removed; no other program uses this number."""


@dataclass(frozen=True, slots=True)
class Request:
    """One message without sequence number. `ignore` lists error numbers (positive errno) that count as success."""

    type: int
    flags: int
    payload: bytes
    ignore: tuple[int, ...] = ()
    what: str = ""


def seal(request: Request, sequence: int) -> bytes:
    """The message as it goes on the wire."""
    return struct.pack("=IHHII", 16 + len(request.payload), request.type, request.flags, sequence, 0) + request.payload


def attr(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + b"\0" * (-length % 4)


def _text(kind: int, value: str) -> bytes:
    return attr(kind, value.encode() + b"\0")


def _u32(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack("=I", value))


def _mac(value: str) -> bytes:
    return bytes.fromhex(value.replace(":", ""))


def _ip(value: str) -> bytes:
    return ipaddress.ip_address(value).packed


def _ifinfo(index: int = 0, *, up: bool | None = None) -> bytes:
    flags = IFF_UP if up else 0
    change = IFF_UP if up is not None else 0
    return struct.pack("=BxHiII", AF_UNSPEC, 0, index, flags, change)


_NEW = F_REQUEST | F_ACK | F_CREATE | F_EXCL
_SET = F_REQUEST | F_ACK
_PUT = F_REQUEST | F_ACK | F_CREATE | F_REPLACE
EEXIST, ENODEV, ENOENT, ESRCH, EADDRNOTAVAIL = 17, 19, 2, 3, 99


def _linkinfo(kind: str, data: bytes = b"") -> bytes:
    body = _text(IFLA_INFO_KIND, kind) + (attr(IFLA_INFO_DATA | NESTED, data) if data else b"")
    return attr(IFLA_LINKINFO | NESTED, body)


def add_bridge(name: str, mac: str, mtu: int) -> Request:
    body = _ifinfo(up=True) + _text(IFLA_IFNAME, name) + attr(IFLA_ADDRESS, _mac(mac)) + _u32(IFLA_MTU, mtu)
    return Request(RTM_NEWLINK, _NEW, body + _linkinfo("bridge"), (EEXIST,), f"bridge {name}")


def add_vxlan(name: str, mac: str, mtu: int, vni: int, local: str, port: int) -> Request:
    """A VXLAN device that learns nothing: every remote stands in its fdb."""
    data = (
        _u32(IFLA_VXLAN_ID, vni)
        + attr(IFLA_VXLAN_LOCAL, _ip(local))
        + attr(IFLA_VXLAN_LEARNING, b"\0")
        + attr(IFLA_VXLAN_PORT, struct.pack(">H", port))
    )
    body = _ifinfo(up=True) + _text(IFLA_IFNAME, name) + attr(IFLA_ADDRESS, _mac(mac)) + _u32(IFLA_MTU, mtu)
    return Request(RTM_NEWLINK, _NEW, body + _linkinfo("vxlan", data), (EEXIST,), f"vxlan {name}")


def add_veth(name: str, master: int, mtu: int, peer: str, peer_index: int, peer_mac: str, netns_fd: int) -> Request:
    """A veth pair in one message: our end up and in the bridge, the other end named, numbered and in the namespace."""
    inner = _ifinfo(peer_index) + _text(IFLA_IFNAME, peer) + _u32(IFLA_MTU, mtu) + attr(IFLA_ADDRESS, _mac(peer_mac))
    data = attr(VETH_INFO_PEER, inner + _u32(IFLA_NET_NS_FD, netns_fd))
    body = _ifinfo(up=True) + _text(IFLA_IFNAME, name) + _u32(IFLA_MTU, mtu) + _u32(IFLA_MASTER, master)
    return Request(RTM_NEWLINK, _NEW, body + _linkinfo("veth", data), (), f"veth {name}")


def set_up(index: int) -> Request:
    return Request(RTM_NEWLINK, _SET, _ifinfo(index, up=True), (), f"link {index} up")


def set_master(name: str, master: int) -> Request:
    body = _ifinfo(up=True) + _text(IFLA_IFNAME, name) + _u32(IFLA_MASTER, master)
    return Request(RTM_NEWLINK, _SET, body, (ENODEV,), f"link {name} into bridge")


def delete_link(name: str) -> Request:
    return Request(RTM_DELLINK, _SET, _ifinfo() + _text(IFLA_IFNAME, name), (ENODEV,), f"remove link {name}")


def set_group(name: str, group: int) -> Request:
    return Request(RTM_NEWLINK, _SET, _ifinfo() + _text(IFLA_IFNAME, name) + _u32(IFLA_GROUP, group), (ENODEV,), f"mark {name}")


def delete_group(group: int) -> Request:
    return Request(RTM_DELLINK, _SET, _ifinfo() + _u32(IFLA_GROUP, group), (ENODEV,), "remove marked links")


def delete_links(names: Sequence[str]) -> list[Request]:
    """Several at once: the kernel waits about 30 ms for each link it removes, and once for a whole group."""
    if len(names) < 2:
        return [delete_link(name) for name in names]
    return [*(set_group(name, GROUP_LEAVING) for name in names), delete_group(GROUP_LEAVING)]


def add_address(index: int, address: str) -> Request:
    """`address` with prefix length."""
    ip, _, length = address.partition("/")
    body = struct.pack("=BBBBI", AF_INET, int(length), 0, 0, index) + attr(IFA_LOCAL, _ip(ip)) + attr(IFA_ADDRESS, _ip(ip))
    return Request(RTM_NEWADDR, F_REQUEST | F_ACK | F_CREATE | F_REPLACE, body, (EEXIST,), f"address {address}")


def _route(destination: str, gateway: str, index: int, *, onlink: bool) -> bytes:
    net = ipaddress.ip_network(destination)
    flags = RTNH_F_ONLINK if onlink else 0
    head = (AF_INET, net.prefixlen, 0, 0, RT_TABLE_MAIN, RTPROT_SHOAL, RT_SCOPE_UNIVERSE, RTN_UNICAST, flags)
    body = struct.pack("=BBBBBBBBI", *head)
    if net.prefixlen:
        body += attr(RTA_DST, net.network_address.packed)
    return body + attr(RTA_GATEWAY, _ip(gateway)) + _u32(RTA_OIF, index)


def put_route(destination: str, gateway: str, index: int, *, onlink: bool = False) -> Request:
    body = _route(destination, gateway, index, onlink=onlink)
    return Request(RTM_NEWROUTE, _PUT, body, (), f"route {destination} via {gateway}")


def delete_route(destination: str, gateway: str, index: int) -> Request:
    body = _route(destination, gateway, index, onlink=True)
    return Request(RTM_DELROUTE, _SET, body, (ESRCH, ENODEV, ENOENT), f"remove route {destination}")


def _neighbour(family: int, index: int, flags: int, address: str, mac: str) -> bytes:
    body = struct.pack("=BxxxiHBB", family, index, NUD_PERMANENT, flags, 0)
    return body + attr(NDA_DST, _ip(address)) + (attr(NDA_LLADDR, _mac(mac)) if mac else b"")


def put_neighbour(address: str, mac: str, index: int) -> Request:
    return Request(RTM_NEWNEIGH, _PUT, _neighbour(AF_INET, index, 0, address, mac), (), f"neighbour {address}")


def delete_neighbour(address: str, index: int) -> Request:
    return Request(RTM_DELNEIGH, _SET, _neighbour(AF_INET, index, 0, address, ""), (ENOENT, ENODEV), f"remove {address}")


def put_fdb(mac: str, destination: str, index: int) -> Request:
    return Request(RTM_NEWNEIGH, _PUT, _neighbour(AF_BRIDGE, index, NTF_SELF, destination, mac), (), f"fdb {mac}")


def delete_fdb(mac: str, destination: str, index: int) -> Request:
    body = _neighbour(AF_BRIDGE, index, NTF_SELF, destination, mac)
    return Request(RTM_DELNEIGH, _SET, body, (ENOENT, ENODEV), f"remove fdb {mac}")


def get_link(name: str) -> Request:
    return Request(RTM_GETLINK, F_REQUEST, _ifinfo() + _text(IFLA_IFNAME, name), (), f"link {name}")


def dump_links() -> Request:
    return Request(RTM_GETLINK, F_REQUEST | F_DUMP, _ifinfo(), (), "links")


def dump_addresses() -> Request:
    return Request(RTM_GETADDR, F_REQUEST | F_DUMP, struct.pack("=BBBBI", AF_INET, 0, 0, 0, 0), (), "addresses")


def dump_routes() -> Request:
    return Request(RTM_GETROUTE, F_REQUEST | F_DUMP, struct.pack("=BBBBBBBBI", AF_INET, *([0] * 8)), (), "routes")


def dump_neighbours(family: int) -> Request:
    return Request(RTM_GETNEIGH, F_REQUEST | F_DUMP, struct.pack("=BxxxiHBB", family, 0, 0, 0, 0), (), "neighbours")


@dataclass(frozen=True, slots=True)
class Link:
    index: int
    name: str
    mtu: int
    up: bool
    mac: str
    master: int = 0


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
    return Link(
        index,
        found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(),
        int.from_bytes(found.get(IFLA_MTU, b""), "little"),
        bool(flags & IFF_UP),
        found.get(IFLA_ADDRESS, b"").hex(":"),
        int.from_bytes(found.get(IFLA_MASTER, b""), "little"),
    )


def parse_address(payload: bytes) -> tuple[int, str]:
    """(link index, address/prefix)."""
    _, length, _, _, index = struct.unpack_from("=BBBBI", payload)
    found = attributes(payload[8:])
    ip = ipaddress.IPv4Address(found.get(IFA_LOCAL) or found[IFA_ADDRESS])
    return index, f"{ip}/{length}"


def parse_route(payload: bytes) -> tuple[str, str, int]:
    """(destination CIDR, gateway or empty, link index)."""
    length = payload[1]
    found = attributes(payload[12:])
    destination = ipaddress.IPv4Address(found[RTA_DST]) if RTA_DST in found else ipaddress.IPv4Address(0)
    gateway = str(ipaddress.IPv4Address(found[RTA_GATEWAY])) if RTA_GATEWAY in found else ""
    return f"{destination}/{length}", gateway, int.from_bytes(found.get(RTA_OIF, b""), "little")


def parse_neighbour(payload: bytes) -> tuple[int, str, str]:
    """(link index, address, MAC)."""
    _, index, _, _, _ = struct.unpack_from("=BxxxiHBB", payload)
    found = attributes(payload[12:])
    raw = found.get(NDA_DST, b"")
    address = str(ipaddress.ip_address(raw)) if len(raw) in (4, 16) else ""
    return index, address, found.get(NDA_LLADDR, b"").hex(":")
