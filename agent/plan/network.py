"""What a node's kernel must hold for its networks, as data.

Rules: pure. One bridge for local containers and one VXLAN device routed per node: one route, one neighbour entry and one
fdb entry for each remote node, none for each container. Names and MAC addresses follow from the network alone, so a
restarted agent finds its own things again. Everything of ours carries a link name that begins with `sh`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

VXLAN_PORT: Final = 4789
VXLAN_OVERHEAD_BYTES: Final = 50
LINK_PREFIXES: Final = ("shb-", "shx-", "shv-")
LOCAL_BRIDGE: Final = "bridge"
LOCAL_SUBNET: Final = "172.30.0.0/20"


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
    """Kernel entries for one remote node: route slice via vtep, neighbour vtep -> mac, fdb mac -> underlay."""

    slice: str
    vtep: str
    mac: str
    underlay: str


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """The links of one network. `vxlan` empty: a local bridge. `gateway` carries the slice's prefix length."""

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


def local_bridge() -> NetworkWanted:
    """The node's own `bridge` network: reachable on this node only, masqueraded outwards."""
    return NetworkWanted(LOCAL_BRIDGE, 0, LOCAL_SUBNET, LOCAL_SUBNET)


def vtep_address(slice_cidr: str) -> str:
    """The VXLAN device's address: the slice's network address, which no container gets."""
    return str(ipaddress.ip_network(slice_cidr).network_address)


def gateway_address(slice_cidr: str) -> str:
    """The bridge's address, with prefix length: the slice's first host."""
    net = ipaddress.ip_network(slice_cidr)
    return f"{net.network_address + 1}/{net.prefixlen}"


def mac_of(address: str, vni: int = 0) -> str:
    """A locally administered MAC that follows from the IPv4 address: 0a:VV:ip:ip:ip:ip (VV: low byte of the VNI)."""
    octets = ipaddress.IPv4Address(address.split("/")[0]).packed
    return ":".join(f"{byte:02x}" for byte in (0x0A, vni & 0xFF, *octets))


def link_plan(wanted: NetworkWanted, underlay_mtu: int) -> LinkPlan:
    """Bridge, VXLAN device and remote entries of one network."""
    gateway = gateway_address(wanted.slice)
    bridge_mac = mac_of(gateway, wanted.vni)
    if not wanted.vni:
        return LinkPlan(
            wanted.name, "shb-0", bridge_mac, gateway, mtu=underlay_mtu, subnet=wanted.subnet, internal=wanted.internal
        )
    vtep = vtep_address(wanted.slice)
    return LinkPlan(
        name=wanted.name,
        bridge=f"shb-{wanted.vni}",
        bridge_mac=bridge_mac,
        gateway=gateway,
        vxlan=f"shx-{wanted.vni}",
        vni=wanted.vni,
        vtep=vtep,
        vtep_mac=mac_of(vtep, wanted.vni),
        mtu=underlay_mtu - VXLAN_OVERHEAD_BYTES,
        remotes=tuple(remote(peer, wanted.vni) for peer in wanted.peers if peer.underlay and peer.slice),
        subnet=wanted.subnet,
        internal=wanted.internal,
    )


def remote(peer: PeerWanted, vni: int) -> Remote:
    vtep = vtep_address(peer.slice)
    return Remote(peer.slice, vtep, mac_of(vtep, vni), peer.underlay)


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
