"""One interface of a container, and what its own namespace must hold, as data.

Rules: pure. Layer 3 only: the interface has its address with the subnet's length but no route of it, everything but the gateway
goes by way of the gateway, also the neighbour beside it. The first network that has a way out gives the default route.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.plan import ipam, netlink
from agent.plan.firewall import PortRow
from agent.plan.netlink import Request
from agent.plan.network import LinkPlan, veth_name
from model.addresses import embedded, mac_of
from model.errors import RuntimeFailed

_EVERYWHERE = "0.0.0.0/0"
_EVERYWHERE6 = "::/0"
NO_NAMESPACE = "the container has no network namespace of its own: start it on a network first"


@dataclass(frozen=True, slots=True)
class Interface:
    """`eth<number>` of a container, and its host end `link`. Addresses without prefix length."""

    network: str
    address: str
    link: str
    number: int
    mac: str
    address6: str = ""


def interface(container_id: str, number: int, plan: LinkPlan, address: str) -> Interface:
    address6 = embedded(plan.prefix6, address) if plan.prefix6 else ""
    return Interface(plan.name, address, veth_name(container_id, number), number, mac_of(address, plan.vni), address6)


def address_on(plan: LinkPlan, wanted: str, others: Iterable[Interface], resting: Collection[str], last: str) -> str:
    """An address for one more container of this node: the one that is `wanted`, else (empty) the next free one after `last`.

    `others`: every interface there is, of any network. Raises RuntimeFailed with why there is none.
    """
    pool = ipam.Pool(
        ipam.network_of(plan.gateway),
        {found.address for found in others if found.network == plan.name},
        resting,
        plan.fixed,
        [address for remote in plan.remotes for address in remote.addresses],
    )
    address, why = ipam.choose(pool, wanted, last)
    if why:
        raise RuntimeFailed(f"network {plan.name}: {why}")
    return address


def next_number(interfaces: Sequence[Interface]) -> int:
    """The first `eth<number>` that is free."""
    taken = {found.number for found in interfaces}
    return next(number for number in range(len(taken) + 1) if number not in taken)


def rows(interfaces: Sequence[Interface]) -> tuple[PortRow, ...]:
    """Who may send what: any of the container's links with any of its addresses, since it answers by its default route."""
    return tuple(
        PortRow(by.link, by.mac, owner.address, owner.address6) for by in interfaces for owner in interfaces
    )  # fmt: skip


def length(cidr: str) -> str:
    return cidr.split("/")[1]


def inside(plan: LinkPlan, found: Interface, index: int, *, ipv6: bool) -> list[Request]:
    """Brings the interface up with its address and the routes of its network."""
    gateway, _ = plan.gateway.split("/")
    requests = [
        *netlink.set_inside(index, ipv6=ipv6),
        netlink.add_address(index, f"{found.address}/{length(plan.subnet)}", prefix_route=False),
        netlink.put_route(f"{gateway}/32", "", index),
        netlink.put_route(plan.subnet, gateway, index),
    ]
    if found.address6 and plan.prefix6:
        gateway6, _ = plan.gateway6.split("/")
        requests += [
            netlink.add_address(index, f"{found.address6}/{length(plan.subnet6)}", prefix_route=False),
            netlink.put_route(f"{gateway6}/128", "", index),
            netlink.put_route(plan.subnet6, gateway6, index),
        ]
    return requests


def ways_out(plans: Mapping[str, LinkPlan], interfaces: Sequence[Interface]) -> tuple[Interface | None, Interface | None]:
    """Whose gateways the default routes of IPv4 and IPv6 go to."""
    out = [found for found in interfaces if (plan := plans.get(found.network)) and not plan.internal]
    return next(iter(out), None), next((found for found in out if found.address6), None)


def default_routes(plans: Mapping[str, LinkPlan], interfaces: Sequence[Interface], indexes: Mapping[int, int]) -> list[Request]:
    """`indexes`: from the interfaces' numbers to their links'."""
    out, out6 = ways_out(plans, interfaces)
    requests = []
    if out is not None:
        gateway = plans[out.network].gateway.split("/")[0]
        requests.append(netlink.put_route(_EVERYWHERE, gateway, indexes[out.number]))
    if out6 is not None and plans[out6.network].gateway6:
        gateway6 = plans[out6.network].gateway6.split("/")[0]
        requests.append(netlink.put_route(_EVERYWHERE6, gateway6, indexes[out6.number]))
    return requests
