"""What the driver asks of the kernel for one network: make it, see what is missing. Synchronous; called in threads."""

from __future__ import annotations

import contextlib
import ipaddress
from pathlib import Path
from typing import Final

from agent.network.nft import Nft
from agent.network.rtnl import Netlink
from agent.plan import firewall, netlink
from agent.plan.network import VXLAN_PORT, LinkPlan, Remote
from model.errors import RuntimeFailed

_NODE_SYSCTLS: Final = (("net/ipv4/ip_forward", "1"), ("net/bridge/bridge-nf-call-iptables", "0"))
_DEFAULT_MTU: Final = 1500


def prepare_node() -> None:
    """Forwarding on; bridged frames stay out of iptables (missing when the bridge module is not loaded: nothing to set)."""
    for name, value in _NODE_SYSCTLS:
        with contextlib.suppress(FileNotFoundError):
            path = Path("/proc/sys", name)
            if path.read_text().strip() != value:
                path.write_text(value)


def underlay_mtu(nl: Netlink, underlay: str) -> int:
    """MTU of the link that carries the node's underlay address; 1500 when there is none."""
    indexes = {index for index, address in map(netlink.parse_address, nl.dump(netlink.dump_addresses()))
               if address.split("/")[0] == underlay}  # fmt: skip
    found = [link.mtu for link in nl.links().values() if link.index in indexes and link.name != "lo"]
    return min(found, default=_DEFAULT_MTU)


def slice_of(plan: LinkPlan) -> str:
    """The node's slice as CIDR."""
    return str(ipaddress.ip_interface(plan.gateway).network)


def make_network(nl: Netlink, plan: LinkPlan, before: LinkPlan | None, underlay: str) -> None:
    """Links, addresses and remote entries of `plan`; with `before`, only the remote entries that differ."""
    if before is None:
        _make_links(nl, plan, underlay)
    if not plan.vxlan:
        return
    index = nl.index(plan.vxlan)
    old = {remote.slice: remote for remote in before.remotes} if before else {}
    new = {remote.slice: remote for remote in plan.remotes}
    requests = []
    for cidr, remote in old.items():
        if new.get(cidr) != remote:
            requests += _forget(remote, index)
    for cidr, remote in new.items():
        if old.get(cidr) != remote:
            requests += _learn(remote, index)
    nl.send(requests)


def _make_links(nl: Netlink, plan: LinkPlan, underlay: str) -> None:
    links = [netlink.add_bridge(plan.bridge, plan.bridge_mac, plan.mtu)]
    if plan.vxlan:
        vxlan = netlink.add_vxlan(plan.vxlan, plan.vtep_mac, plan.mtu, plan.vni, underlay, VXLAN_PORT)
        links.append(vxlan)
    nl.send(links)
    bridge = nl.index(plan.bridge)
    if not bridge:
        raise RuntimeFailed(f"network {plan.name}: bridge {plan.bridge} could not be made")
    requests = [netlink.set_up(bridge), netlink.add_address(bridge, plan.gateway)]
    if plan.vxlan:
        vxlan_index = nl.index(plan.vxlan)
        requests += [netlink.set_up(vxlan_index), netlink.add_address(vxlan_index, f"{plan.vtep}/32")]
    nl.send(requests)


def _learn(remote: Remote, index: int) -> list[netlink.Request]:
    return [
        netlink.put_neighbour(remote.vtep, remote.mac, index),
        netlink.put_fdb(remote.mac, remote.underlay, index),
        netlink.put_route(remote.slice, remote.vtep, index, onlink=True),
    ]


def _forget(remote: Remote, index: int) -> list[netlink.Request]:
    return [
        netlink.delete_route(remote.slice, remote.vtep, index),
        netlink.delete_neighbour(remote.vtep, index),
        netlink.delete_fdb(remote.mac, remote.underlay, index),
    ]


def missing(nl: Netlink, plan: LinkPlan) -> list[str]:
    """What of `plan` the kernel does not hold, in words."""
    links = nl.links()
    gone = [f"link {name}" for name in (plan.bridge, plan.vxlan) if name and (name not in links or not links[name].up)]
    if gone:
        return gone
    bridge = links[plan.bridge].index
    addresses = set(map(netlink.parse_address, nl.dump(netlink.dump_addresses())))
    if (bridge, plan.gateway) not in addresses:
        gone.append(f"address {plan.gateway}")
    if not plan.remotes:
        return gone
    index = links[plan.vxlan].index
    routes = set(map(netlink.parse_route, nl.dump(netlink.dump_routes())))
    neighbours = set(map(netlink.parse_neighbour, nl.dump(netlink.dump_neighbours(netlink.AF_INET))))
    fdb = set(map(netlink.parse_neighbour, nl.dump(netlink.dump_neighbours(netlink.AF_BRIDGE))))
    for remote in plan.remotes:
        if (remote.slice, remote.vtep, index) not in routes:
            gone.append(f"route {remote.slice}")
        if (index, remote.vtep, remote.mac) not in neighbours:
            gone.append(f"neighbour {remote.vtep}")
        if (index, remote.underlay, remote.mac) not in fdb:
            gone.append(f"fdb entry {remote.mac}")
    return gone


def table_present(nft: Nft) -> bool:
    """Whether our nftables table is there."""
    return f"table ip {firewall.TABLE}\n" in nft.run("list tables ip") + "\n"
