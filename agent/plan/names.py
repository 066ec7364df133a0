"""Names of one network's services and replicas, and the answer to each question about them.

Rules: pure. Names are looked up without regard to case and never leave their network. A service's name gives its ready
replicas; when none is ready there is no answer to give, but the name exists (NODATA, not NXDOMAIN: what asks again soon must
not be told that there is no such name). `tasks.NAME` gives every replica that runs.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

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


@dataclass(frozen=True, slots=True)
class Answer:
    """`exists` False: there is no such name here. `addresses` may be empty for a name that exists."""

    exists: bool
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Zone:
    """What one network's questions are looked up in; made anew when the network's services change."""

    by_name: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    by_address: Mapping[str, str] = field(default_factory=dict)

    def address_of(self, name: str) -> Answer:
        """Addresses for a name, with or without its final dot."""
        found = self.by_name.get(name.rstrip(".").lower())
        return Answer(found is not None, found or ())

    def name_of(self, reverse: str) -> str:
        """The replica behind `2.1.64.10.in-addr.arpa`; empty when it is none of ours."""
        words = reverse.rstrip(".").lower().split(".")
        if len(words) != 6 or words[4:] != ["in-addr", "arpa"]:
            return ""
        return self.by_address.get(".".join(reversed(words[:4])), "")


def merged(current: NetworkNames, message: EndpointsMessage) -> NetworkNames:
    """What is known of the network after `message`."""
    services = {} if message.whole else {service.service_id: service for service in current.services}
    for gone in message.removed:
        services.pop(gone, None)
    services |= {service.service_id: service for service in message.services}
    return NetworkNames(tuple(services[key] for key in sorted(services)))


def zone(names: NetworkNames) -> Zone:
    """The look-up tables of a network. A name that several bear gives the addresses of all of them."""
    by_name: dict[str, dict[str, None]] = {}
    by_address: dict[str, str] = {}
    for service in names.services:
        running = [endpoint.address for endpoint in service.endpoints]
        ready = [endpoint.address for endpoint in service.endpoints if endpoint.ready]
        for name in service.names:
            _add(by_name, name, ready)
            _add(by_name, f"tasks.{name}", running)
        for endpoint in service.endpoints:
            for name in (endpoint.replica, *endpoint.names):
                _add(by_name, name, (endpoint.address,))
            by_address[endpoint.address] = endpoint.replica
    return Zone({name: tuple(addresses) for name, addresses in by_name.items()}, by_address)


def _add(table: dict[str, dict[str, None]], name: str, addresses: Iterable[str]) -> None:
    table.setdefault(name.lower(), {}).update(dict.fromkeys(addresses))


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
