"""What a container's /etc files and the name server must know of its networks.

Rules: pure. One name server line serves all networks: who asks is known by its address. Addresses of IPv6 follow from those of
IPv4.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.plan.names import Client
from agent.plan.network import LOCAL_BRIDGE, NetworkWanted, gateway_address
from agent.plan.networks import BUILT_IN, HOST
from agent.plan.records import Life
from model.addresses import embedded


@dataclass(frozen=True, slots=True)
class EtcFacts:
    """`addresses`: the container's own. `nameservers`: ours, if it is to ask us. `forwarder`: who else may be asked for names
    when the host's own servers cannot be reached. `host_gateway`: where its node is."""

    addresses: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    forwarder: str = ""
    host_gateway: str = ""


def known_to(life: Life, networks: Iterable[NetworkWanted]) -> dict[str, NetworkWanted]:
    """Networks of the node by name; its own bridge too, whose subnet is the node's choice, if the replica is on it."""
    found = {network.name: network for network in networks}
    if address := dict(life.addresses).get(LOCAL_BRIDGE):
        subnet = str(ipaddress.IPv4Interface(address).network)
        found[LOCAL_BRIDGE] = NetworkWanted(LOCAL_BRIDGE, 0, subnet, subnet)
    return found


def etc_facts(life: Life, networks: Mapping[str, NetworkWanted]) -> EtcFacts:
    """`networks` as `known_to` gives them."""
    gateways = {name: gateway(networks[name]) for name, _ in life.addresses if name in networks}
    asked = [name for name in gateways if name not in BUILT_IN or life.spec.container.links]
    first = next(iter(gateways.values()), "")
    return EtcFacts(
        addresses=own_addresses(life, networks),
        nameservers=(gateways[_user_first(asked)],) if asked else (),
        forwarder=first,
        host_gateway="127.0.0.1" if life.netns == HOST else first,
    )


def _user_first(names: list[str]) -> str:
    return next((name for name in names if name not in BUILT_IN), names[0])


def own_addresses(life: Life, networks: Mapping[str, NetworkWanted]) -> tuple[str, ...]:
    """IPv4 and, where the network has it, IPv6."""
    rows: list[str] = []
    for name, address in life.addresses:
        four = address.partition("/")[0]
        prefix6 = networks[name].prefix6 if name in networks else ""
        rows += [four, embedded(prefix6, four)] if prefix6 else [four]
    return tuple(rows)


def gateway(network: NetworkWanted) -> str:
    """The node's address on the network."""
    return gateway_address(network.slice).partition("/")[0]


def client(life: Life) -> Client:
    """The replica as the name server sees it."""
    spec = life.spec.container
    addresses = tuple((network, address.partition("/")[0]) for network, address in life.addresses)
    return Client(life.name, addresses, spec.links, tuple(server for server in spec.dns if may_be_asked(server)))


def may_be_asked(server: str) -> bool:
    """Whether the node may ask this resolver for a container. A loopback address is the container's own, the node's is another;
    a name or a port would lead to whatever listens there."""
    try:
        address = ipaddress.ip_address(server)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)
