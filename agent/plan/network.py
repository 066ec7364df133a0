"""What a node's kernel must hold for its networks, as data.

Rules: pure. One bridge for local containers and one VXLAN device routed per node: one route, one neighbour entry and one
fdb entry for each remote node, none for each container. Names and MAC addresses follow from the network alone, so a
restarted agent finds its own things again. Everything of ours carries a link name that begins with `sh`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from model.addresses import embedded, embedded_network, mac_of

VXLAN_PORT: Final = 4789
VXLAN_OVERHEAD_BYTES: Final = 50
LINK_PREFIXES: Final = ("shb-", "shx-", "shv-")
LOCAL_BRIDGE: Final = "bridge"
LOCAL_SUBNETS: Final = tuple(f"{block}.0.0/20" for block in ("172.30", "172.29", "172.28", "172.27", "10.213", "192.168"))
"""The first that overlaps nothing on the machine is the node's own `bridge` network."""
LOCAL_SUBNET: Final = LOCAL_SUBNETS[0]


@dataclass(frozen=True, slots=True)
class PeerWanted:
    """A remote node of the network: frames for `slice` go to `underlay`."""

    node: str
    underlay: str
    slice: str
    addresses: tuple[str, ...] = ()
    """Fixed addresses of its containers, outside its slice."""


@dataclass(frozen=True, slots=True)
class NetworkWanted:
    """One network on this node. `slice` (CIDR) is this node's part of `subnet`; `vni` 0 makes a local bridge only.

    `prefix6`: the IPv6 /96 the addresses are embedded in, empty without IPv6. `addresses`: fixed addresses of this node's
    containers, outside its slice.
    """

    name: str
    vni: int
    subnet: str
    slice: str
    peers: tuple[PeerWanted, ...] = ()
    internal: bool = False
    prefix6: str = ""
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Remote:
    """Kernel entries for one remote node: route slice via vtep, neighbour vtep -> mac, fdb mac -> underlay.

    `addresses`: fixed ones of its containers, routed the same way. With IPv6 `slice6` and `vtep6` stand beside them.
    """

    slice: str
    vtep: str
    mac: str
    underlay: str
    addresses: tuple[str, ...] = ()
    slice6: str = ""
    vtep6: str = ""


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """The links of one network. `vxlan` empty: a local bridge. `gateway` carries the slice's prefix length.

    `fixed`: addresses of this node's containers outside its slice. With IPv6 (`prefix6`, the whole network's /96) `subnet6`,
    `gateway6` (with prefix length) and `vtep6` are what `subnet`, `gateway` and `vtep` are, else empty.
    """

    name: str
    bridge: str
    bridge_mac: str
    gateway: str
    vxlan: str = ""
    vni: int = 0
    vtep: str = ""
    vtep_mac: str = ""
    mtu: int = 1500
    remotes: tuple[Remote, ...] = ()
    subnet: str = ""
    internal: bool = False
    fixed: tuple[str, ...] = ()
    prefix6: str = ""
    subnet6: str = ""
    gateway6: str = ""
    vtep6: str = ""


def local_bridge(subnet: str = LOCAL_SUBNET) -> NetworkWanted:
    """The node's own `bridge` network: reachable on this node only, masqueraded outwards."""
    return NetworkWanted(LOCAL_BRIDGE, 0, subnet, subnet)


def free_subnet(candidates: Sequence[str], used: Collection[str]) -> str | None:
    """The first candidate that overlaps none of the used subnets."""
    nets = [ipaddress.IPv4Network(cidr, strict=False) for cidr in used]
    free = (cidr for cidr in candidates if not any(ipaddress.IPv4Network(cidr).overlaps(net) for net in nets))
    return next(free, None)


def vtep_address(slice_cidr: str) -> str:
    """The VXLAN device's address: the slice's network address, which no container gets."""
    return str(ipaddress.ip_network(slice_cidr).network_address)


def gateway_address(slice_cidr: str) -> str:
    """The bridge's address, with prefix length: the slice's first host."""
    net = ipaddress.ip_network(slice_cidr)
    return f"{net.network_address + 1}/{net.prefixlen}"


def link_plan(wanted: NetworkWanted, underlay_mtu: int) -> LinkPlan:
    """Bridge, VXLAN device and remote entries of one network."""
    gateway, prefix6 = gateway_address(wanted.slice), wanted.prefix6
    plan = LinkPlan(
        wanted.name,
        f"shb-{wanted.vni}",
        mac_of(gateway, wanted.vni),
        gateway,
        mtu=underlay_mtu,
        subnet=wanted.subnet,
        internal=wanted.internal,
        fixed=tuple(sorted(wanted.addresses)),
        prefix6=prefix6,
        subnet6=embedded_network(prefix6, wanted.subnet) if prefix6 else "",
        gateway6=gateway6_of(prefix6, gateway) if prefix6 else "",
    )
    if not wanted.vni:
        return plan
    vtep = vtep_address(wanted.slice)
    return replace(
        plan,
        vxlan=f"shx-{wanted.vni}",
        vni=wanted.vni,
        vtep=vtep,
        vtep_mac=mac_of(vtep, wanted.vni),
        vtep6=embedded(prefix6, vtep) if prefix6 else "",
        mtu=underlay_mtu - VXLAN_OVERHEAD_BYTES,
        remotes=tuple(remote(peer, wanted.vni, prefix6) for peer in wanted.peers if peer.underlay and peer.slice),
    )


def gateway6_of(prefix6: str, gateway: str) -> str:
    """The bridge's IPv6 address, with the prefix length of its slice."""
    address, _, length = gateway.partition("/")
    return f"{embedded(prefix6, address)}/{96 + int(length)}"


def remote(peer: PeerWanted, vni: int, prefix6: str = "") -> Remote:
    vtep = vtep_address(peer.slice)
    found = Remote(peer.slice, vtep, mac_of(vtep, vni), peer.underlay, tuple(sorted(peer.addresses)))
    if not prefix6:
        return found
    return replace(found, slice6=embedded_network(prefix6, peer.slice), vtep6=embedded(prefix6, vtep))


def veth_name(container_id: str, index: int) -> str:
    """Host end of a container's interface `eth<index>`; at most 15 characters."""
    return f"shv-{container_id[:9]}{index:02d}"


def overlap(plans: Sequence[LinkPlan]) -> tuple[str, str] | None:
    """Two networks whose subnets overlap, if there are any."""
    seen: list[tuple[ipaddress.IPv4Network, str]] = []
    for plan in plans:
        net = ipaddress.IPv4Network(plan.subnet)
        for other, name in seen:
            if net.overlaps(other):
                return name, plan.name
        seen.append((net, plan.name))
    return None
