"""Route netlink requests as bytes; netlink_read has the answers.

Rules: pure; sequence number and port are filled in by the transport (`seal`). Only what shoal needs. pyroute2 is the oracle
in the contract tests and builds the lab's underlay; the agent does not load it, since it costs 27 MB and 0.3 s at start
(docs/decisions). Shapes from linux/rtnetlink.h, linux/if_link.h, linux/neighbour.h, linux/veth.h.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_GETADDR: Final = 22
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_GETROUTE: Final = 26
RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29
RTM_GETNEIGH: Final = 30
RTM_GETSTATS: Final = 94

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
AF_INET6: Final = 10
IFF_UP: Final = 1

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 28
IFLA_STATS_LINK_64: Final = 1
IFLA_AF_SPEC, IFLA_GROUP, IFLA_EXT_MASK = 26, 27, 29
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_INET_CONF, IFLA_INET6_ADDR_GEN_MODE = 1, 8
CONF_SEND_REDIRECTS, CONF_RP_FILTER = 6, 8
ADDR_GEN_MODE_NONE, RP_FILTER_LOOSE = 1, 2
BRPORT_LEARNING, BRPORT_UNICAST_FLOOD, BRPORT_MCAST_FLOOD, BRPORT_BCAST_FLOOD, BRPORT_ISOLATED = 8, 9, 27, 30, 33
VETH_INFO_PEER = 1
IFLA_VXLAN_ID, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT = 1, 4, 7, 15
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_NODAD, IFA_F_NOPREFIXROUTE = 0x02, 0x200
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE = 1, 4, 5, 6, 7, 15
NDA_DST, NDA_LLADDR = 1, 2
RTNH_F_ONLINK: Final = 4
RT_TABLE_MAIN, RTPROT_SHOAL = 254, 77
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 0, 253, 255
RTN_UNICAST, RTN_UNREACHABLE = 1, 7
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
NTF_SELF, NTF_MASTER = 0x02, 0x04
RTEXT_FILTER_SKIP_STATS: Final = 1 << 3
NESTED: Final = 0x8000
GROUP_LEAVING: Final = 0x73686F6C
"""Links about to be removed; no other program uses this number."""
METRIC_LAST: Final = 65_535
"""Of the unreachable routes: every other route comes first."""
CONTAINER_PORT: Final = {
    BRPORT_ISOLATED: 1, BRPORT_LEARNING: 0, BRPORT_UNICAST_FLOOD: 0, BRPORT_MCAST_FLOOD: 0, BRPORT_BCAST_FLOOD: 0,
}  # fmt: skip
"""A container's port of a bridge gets frames meant for it and sends frames to the node, nothing else."""
LINK_CONF: Final = {CONF_SEND_REDIRECTS: 0, CONF_RP_FILTER: RP_FILTER_LOOSE}
"""IPv4 settings of our links. Loose: a container on two networks answers by its default route, whichever a request came by."""


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


def _family(address: str) -> int:
    return AF_INET6 if ":" in address else AF_INET


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


def _conf(conf: Mapping[int, int], *, ipv6: bool) -> bytes:
    """IPv4 settings of a link; with `ipv6` also: no address of its own making."""
    values = b"".join(_u32(kind, value) for kind, value in conf.items())
    body = attr(AF_INET | NESTED, attr(IFLA_INET_CONF | NESTED, values)) if values else b""
    if ipv6:
        body += attr(AF_INET6 | NESTED, attr(IFLA_INET6_ADDR_GEN_MODE, bytes([ADDR_GEN_MODE_NONE])))
    return attr(IFLA_AF_SPEC | NESTED, body) if body else b""


def add_bridge(name: str, mac: str) -> Request:
    """Without MTU: a bridge keeps to one only when it was changed to it, else it follows its ports."""
    body = _ifinfo() + _text(IFLA_IFNAME, name) + attr(IFLA_ADDRESS, _mac(mac))
    return Request(RTM_NEWLINK, _NEW, body + _linkinfo("bridge"), (EEXIST,), f"bridge {name}")


def add_vxlan(name: str, mac: str, mtu: int, vni: int, local: str, port: int) -> Request:
    """A VXLAN device that learns nothing: every remote stands in its fdb."""
    data = (
        _u32(IFLA_VXLAN_ID, vni)
        + attr(IFLA_VXLAN_LOCAL, _ip(local))
        + attr(IFLA_VXLAN_LEARNING, b"\0")
        + attr(IFLA_VXLAN_PORT, struct.pack(">H", port))
    )
    body = _ifinfo() + _text(IFLA_IFNAME, name) + attr(IFLA_ADDRESS, _mac(mac)) + _u32(IFLA_MTU, mtu)
    return Request(RTM_NEWLINK, _NEW, body + _linkinfo("vxlan", data), (EEXIST,), f"vxlan {name}")


def add_veth(name: str, master: int, mtu: int, peer: str, peer_index: int, peer_mac: str, netns_fd: int) -> Request:
    """A veth pair in one message: our end in the bridge, the other end named, numbered (0: any) and in the namespace; down."""
    inner = _ifinfo(peer_index) + _text(IFLA_IFNAME, peer) + _u32(IFLA_MTU, mtu) + attr(IFLA_ADDRESS, _mac(peer_mac))
    data = attr(VETH_INFO_PEER, inner + _u32(IFLA_NET_NS_FD, netns_fd))
    body = _ifinfo() + _text(IFLA_IFNAME, name) + _u32(IFLA_MTU, mtu) + _u32(IFLA_MASTER, master)
    return Request(RTM_NEWLINK, _NEW, body + _linkinfo("veth", data), (), f"veth {name}")


def set_up(index: int) -> Request:
    return Request(RTM_NEWLINK, _SET, _ifinfo(index, up=True), (), f"link {index} up")


def set_link(name: str, mac: str, mtu: int, *, ipv6: bool) -> list[Request]:
    """One of our own devices (bridge, VXLAN) as it should be, and then up: the kernel would take both the other way round."""
    named = _text(IFLA_IFNAME, name)
    body = _ifinfo() + named + attr(IFLA_ADDRESS, _mac(mac)) + _u32(IFLA_MTU, mtu) + _conf(LINK_CONF, ipv6=ipv6)
    return [
        Request(RTM_NEWLINK, _SET, body, (), f"link {name}"),
        Request(RTM_NEWLINK, _SET, _ifinfo(up=True) + named, (), f"link {name} up"),
    ]


def set_inside(index: int, *, ipv6: bool) -> list[Request]:
    """A container's own end, and then up."""
    body = _ifinfo(index) + _conf({CONF_RP_FILTER: RP_FILTER_LOOSE}, ipv6=ipv6)
    return [Request(RTM_NEWLINK, _SET, body, (), f"link {index}"), set_up(index)]


def set_master(name: str, master: int) -> Request:
    body = _ifinfo() + _text(IFLA_IFNAME, name) + _u32(IFLA_MASTER, master)
    return Request(RTM_NEWLINK, _SET, body, (ENODEV,), f"link {name} into bridge")


def set_port(name: str, *, ipv6: bool) -> Request:
    """The host end of a container's link, in its bridge already: isolated, and up."""
    flags = b"".join(attr(kind, bytes([value])) for kind, value in CONTAINER_PORT.items())
    info = _text(IFLA_INFO_SLAVE_KIND, "bridge") + attr(IFLA_INFO_SLAVE_DATA | NESTED, flags)
    body = _ifinfo(up=True) + _text(IFLA_IFNAME, name) + attr(IFLA_LINKINFO | NESTED, info)
    return Request(RTM_NEWLINK, _SET, body + _conf({}, ipv6=ipv6), (), f"port {name}")


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


def _address(index: int, address: str, flags: int) -> bytes:
    ip, _, length = address.partition("/")
    body = struct.pack("=BBBBI", _family(ip), int(length), 0, 0, index) + attr(IFA_LOCAL, _ip(ip)) + attr(IFA_ADDRESS, _ip(ip))
    return body + (_u32(IFA_FLAGS, flags) if flags else b"")


def add_address(index: int, address: str, *, prefix_route: bool = True) -> Request:
    """`address` with prefix length. Without `prefix_route` only the address itself is on the link."""
    flags = (0 if prefix_route else IFA_F_NOPREFIXROUTE) | (IFA_F_NODAD if ":" in address else 0)
    return Request(RTM_NEWADDR, _PUT, _address(index, address, flags), (EEXIST,), f"address {address}")


def delete_address(index: int, address: str) -> Request:
    return Request(RTM_DELADDR, _SET, _address(index, address, 0), (EADDRNOTAVAIL, ENODEV), f"remove address {address}")


def _route(destination: str, gateway: str, index: int, flags: int, scope: int) -> bytes:
    net = ipaddress.ip_network(destination)
    kind = RTN_UNICAST if index else RTN_UNREACHABLE
    head = (_family(destination), net.prefixlen, 0, 0, RT_TABLE_MAIN, RTPROT_SHOAL, scope, kind, flags)
    body = struct.pack("=BBBBBBBBI", *head)
    if net.prefixlen:
        body += attr(RTA_DST, net.network_address.packed)
    if gateway:
        body += attr(RTA_GATEWAY, _ip(gateway))
    return body + (_u32(RTA_OIF, index) if index else _u32(RTA_PRIORITY, METRIC_LAST))


def put_route(destination: str, gateway: str, index: int, *, onlink: bool = False, source: str = "") -> Request:
    """By way of `gateway`; without one: on the link itself; without a link either: nowhere (unreachable)."""
    direct = index and not gateway and ":" not in destination
    body = _route(destination, gateway, index, RTNH_F_ONLINK if onlink else 0, RT_SCOPE_LINK if direct else RT_SCOPE_UNIVERSE)
    body += attr(RTA_PREFSRC, _ip(source)) if source else b""
    return Request(RTM_NEWROUTE, _PUT, body, (), f"route {destination} via {gateway or 'its link'}")


def delete_route(destination: str, gateway: str, index: int) -> Request:
    body = _route(destination, gateway, index, 0, RT_SCOPE_NOWHERE)
    return Request(RTM_DELROUTE, _SET, body, (ESRCH, ENODEV, ENOENT), f"remove route {destination}")


def _neighbour(family: int, index: int, flags: int, address: str, mac: str, state: int = NUD_PERMANENT) -> bytes:
    body = struct.pack("=BxxxiHBB", family, index, state, flags, 0) + (attr(NDA_DST, _ip(address)) if address else b"")
    return body + (attr(NDA_LLADDR, _mac(mac)) if mac else b"")


def put_neighbour(address: str, mac: str, index: int) -> Request:
    return Request(RTM_NEWNEIGH, _PUT, _neighbour(_family(address), index, 0, address, mac), (), f"neighbour {address}")


def delete_neighbour(address: str, index: int) -> Request:
    body = _neighbour(_family(address), index, 0, address, "")
    return Request(RTM_DELNEIGH, _SET, body, (ENOENT, ENODEV), f"remove neighbour {address}")


def put_fdb(mac: str, destination: str, index: int) -> Request:
    """VXLAN device: frames for `mac` go to `destination`. Without one, a bridge's port: `mac` is behind it, and stays there."""
    body = _fdb(mac, destination, index)
    return Request(RTM_NEWNEIGH, _PUT, body, (), f"fdb {mac}")


def delete_fdb(mac: str, destination: str, index: int) -> Request:
    return Request(RTM_DELNEIGH, _SET, _fdb(mac, destination, index), (ENOENT, ENODEV), f"remove fdb {mac}")


def _fdb(mac: str, destination: str, index: int) -> bytes:
    if destination:
        return _neighbour(AF_BRIDGE, index, NTF_SELF, destination, mac)
    return _neighbour(AF_BRIDGE, index, NTF_MASTER, "", mac, NUD_NOARP)


def dump_links() -> Request:
    body = _ifinfo() + _u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    return Request(RTM_GETLINK, F_REQUEST | F_DUMP, body, (), "links")


def dump_link_counts() -> Request:
    """What each link has received and sent, and nothing else of it (since Linux 4.7)."""
    body = struct.pack("=BxxxII", AF_UNSPEC, 0, 1 << (IFLA_STATS_LINK_64 - 1))
    return Request(RTM_GETSTATS, F_REQUEST | F_DUMP, body, (), "counts of the links")


def dump_addresses(family: int = AF_INET) -> Request:
    return Request(RTM_GETADDR, F_REQUEST | F_DUMP, struct.pack("=BBBBI", family, 0, 0, 0, 0), (), "addresses")


def dump_routes(family: int = AF_INET) -> Request:
    return Request(RTM_GETROUTE, F_REQUEST | F_DUMP, struct.pack("=BBBBBBBBI", family, *([0] * 8)), (), "routes")


def dump_neighbours(family: int) -> Request:
    return Request(RTM_GETNEIGH, F_REQUEST | F_DUMP, struct.pack("=BxxxiHBB", family, 0, 0, 0, 0), (), "neighbours")
