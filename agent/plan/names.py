"""Names of networks as records: what the controller tells of them, and who asks on this node.

Rules: pure. What is looked up in them stands in agent/plan/zone.py.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from model.spec import Pairs, Port


@dataclass(frozen=True, slots=True)
class EndpointName:
    """One replica on one network."""

    replica: str
    address: str
    node: str = ""
    ready: bool = True
    names: tuple[str, ...] = ()
    network: str = ""
    """In the network `ingress`: the one `address` is on."""
    underlay: str = ""
    """In the network `ingress`: the address of its node."""


@dataclass(frozen=True, slots=True)
class ServiceNames:
    """One service on one network: what it answers to and who stands behind it."""

    service_id: str
    name: str
    names: tuple[str, ...] = ()
    endpoints: tuple[EndpointName, ...] = ()
    vip: str = ""
    ports: tuple[Port, ...] = ()
    sleeping: bool = False
    """Scaled to zero: who calls is held until a replica is ready."""


@dataclass(frozen=True, slots=True)
class EndpointsMessage:
    """News of one network; `whole` replaces everything known of it."""

    network: str
    whole: bool
    services: tuple[ServiceNames, ...] = ()
    removed: tuple[str, ...] = ()
    number: int = 0
    prefix6: str = ""


@dataclass(frozen=True, slots=True)
class NetworkNames:
    """Services of one network by id, sorted."""

    services: tuple[ServiceNames, ...] = ()
    prefix6: str = ""


@dataclass(frozen=True, slots=True)
class Client:
    """One container of this node as the name server sees it: who asks from one of its addresses gets the names of all its
    networks, in this order, and those of its links. `links`: (name of a service or container, further name for it here)."""

    name: str
    addresses: Pairs = ()
    """(network, IPv4 without prefix length)"""
    links: Pairs = ()
    resolvers: tuple[str, ...] = ()
    """Whom its other questions go to (`dns`); empty: the node's own resolvers."""


def in_turn(addresses: tuple[str, ...], turn: int) -> tuple[str, ...]:
    """The same addresses beginning with another one each time, so that callers who take the first are spread."""
    cut = turn % len(addresses) if addresses else 0
    return addresses[cut:] + addresses[:cut]


def is_address(text: str) -> bool:
    """Whether `text` is an IP address: such names are never asked of anybody."""
    try:
        ipaddress.ip_address(text.rstrip("."))
    except ValueError:
        return False
    return True
