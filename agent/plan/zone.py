"""What the questions about one network's names are looked up in, kept up service by service.

Rules: no I/O. Names are looked up without regard to case and never leave their network. A service's name gives its own
address when it has one, ready replicas or not: it is stable. Otherwise it gives the ready replicas; when none is ready there
is no answer to give, but the name exists (NODATA, not NXDOMAIN: what asks again soon must not be told that there is no such
name). `tasks.NAME` gives every replica that runs. A name that several bear gives all of theirs. One service's news cost what
that service is, however many there are beside it, and leave the same tables as all services taken anew.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from agent.plan.names import EndpointName, EndpointsMessage, NetworkNames, ServiceNames
from model.addresses import embedded

TASKS: Final = "tasks."
_PROTOCOLS: Final = ("_tcp", "_udp", "_sctp")


@dataclass(frozen=True, slots=True)
class Found:
    """A name that exists. `addresses`: IPv4, maybe none. `replicas`: what an SRV question about the name is answered with."""

    addresses: tuple[str, ...] = ()
    replicas: tuple[EndpointName, ...] = ()
    prefix6: str = ""

    def addresses6(self) -> tuple[str, ...]:
        """The same ones in the network's IPv6 prefix; none in a network without."""
        return tuple(embedded(self.prefix6, address) for address in self.addresses) if self.prefix6 else ()


_Table = dict[str, str | dict[str, None]]
"""Name or address -> id of the service that has it, or the ids when several do."""


class Zone:
    """One network's names. `services` by id is what it was made of."""

    def __init__(self, names: NetworkNames | None = None) -> None:
        self.prefix6 = names.prefix6 if names else ""
        self.services: dict[str, ServiceNames] = {}
        self._by_name: _Table = {}
        self._by_address: _Table = {}
        for service in names.services if names else ():
            self._put(service)

    def names(self) -> NetworkNames:
        return NetworkNames(tuple(self.services[key] for key in sorted(self.services)), self.prefix6)

    def take(self, message: EndpointsMessage) -> bool:
        """Whether the news changed anything."""
        prefix6 = message.prefix6 if message.whole else message.prefix6 or self.prefix6
        changed = prefix6 != self.prefix6
        self.prefix6 = prefix6
        removed: Iterable[str] = message.removed
        if message.whole:
            kept = {service.service_id for service in message.services}
            removed = [key for key in self.services if key not in kept]
        for key in removed:
            changed = self._drop(key) or changed
        for service in message.services:
            changed = self._put(service) or changed
        return changed

    def find(self, name: str) -> Found | None:
        """What is behind a name, with or without its final dot; None: there is no such name here."""
        wanted = name.rstrip(".").lower()
        keys = _keys(self._by_name.get(wanted))
        if not keys:
            return None
        parts = [_found(self.services[key], wanted) for key in keys]
        if len(parts) == 1:
            return Found(*parts[0], self.prefix6)
        addresses = tuple(dict.fromkeys(address for part in parts for address in part[0]))
        return Found(addresses, tuple(row for part in parts for row in part[1]), self.prefix6)

    def has6(self, address6: str) -> bool:
        """Whether an address lies in the network's IPv6 prefix."""
        return bool(self.prefix6) and embedded(self.prefix6, embedded_in(address6)) == address6

    def name_of(self, address: str) -> str:
        """The replica or service that has an address (IPv4, or IPv6 in the network's prefix); empty when it is none of ours."""
        if ":" in address:
            address = embedded_in(address) if self.has6(address) else ""
        keys = _keys(self._by_address.get(address))
        return _owner(self.services[keys[0]], address) if keys else ""

    def _put(self, service: ServiceNames) -> bool:
        key = service.service_id
        old = self.services.get(key)
        if old == service:
            return False
        if old is not None:
            self._drop(key)
        self.services[key] = service
        for name in _names(service):
            _add(self._by_name, name, key)
        for address in _addresses_of(service):
            _add(self._by_address, address, key)
        return True

    def _drop(self, key: str) -> bool:
        service = self.services.pop(key, None)
        if service is None:
            return False
        for name in _names(service):
            _remove(self._by_name, name, key)
        for address in _addresses_of(service):
            _remove(self._by_address, address, key)
        return True


def _keys(entry: str | dict[str, None] | None) -> list[str]:
    if entry is None:
        return []
    return [entry] if isinstance(entry, str) else sorted(entry)


def _add(table: _Table, name: str, key: str) -> None:
    entry = table.get(name)
    if entry is None:
        table[name] = key
    elif isinstance(entry, str):
        table[name] = {entry: None, key: None}
    else:
        entry[key] = None


def _remove(table: _Table, name: str, key: str) -> None:
    entry = table[name]
    if isinstance(entry, str):
        del table[name]
        return
    del entry[key]
    if len(entry) == 1:
        table[name] = next(iter(entry))


def _names(service: ServiceNames) -> set[str]:
    """Everything that the service and its replicas answer to."""
    own = [name.lower() for name in service.names]
    found = {*own, *(TASKS + name for name in own)}
    for row in service.endpoints:
        found.add(row.replica.lower())
        found.update(name.lower() for name in row.names)
    return found


def _addresses_of(service: ServiceNames) -> set[str]:
    return {row.address for row in service.endpoints} | ({service.vip} if service.vip else set())


def _found(service: ServiceNames, wanted: str) -> tuple[tuple[str, ...], tuple[EndpointName, ...]]:
    """Addresses and replicas that a name means in one service."""
    own = [name.lower() for name in service.names]
    if wanted in own:
        # a host name that is the service's name too is the service's; a single container has its names ready or not
        rows = [row for row in service.endpoints if row.ready or row.replica == service.name]
        return (service.vip,) if service.vip else _addresses(rows), tuple(rows)
    if wanted.startswith(TASKS) and wanted.removeprefix(TASKS) in own:
        return _addresses(service.endpoints), service.endpoints
    rows = [row for row in service.endpoints if wanted in (row.replica.lower(), *map(str.lower, row.names))]
    return _addresses(rows), tuple(rows)


def _owner(service: ServiceNames, address: str) -> str:
    """The replica that has an address, or the service itself."""
    return next((row.replica for row in service.endpoints if row.address == address), service.name)


def _addresses(rows: Iterable[EndpointName]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.address for row in rows))


def reversed_address(name: str) -> str:
    """The address a reverse name asks about: `2.1.64.10.in-addr.arpa`, or 32 nibbles below `ip6.arpa`; else empty."""
    words = name.rstrip(".").lower().split(".")
    try:
        if words[-2:] == ["in-addr", "arpa"] and len(words) == 6:
            return str(ipaddress.IPv4Address(".".join(reversed(words[:4]))))
        if words[-2:] == ["ip6", "arpa"] and len(words) == 34 and all(len(word) == 1 for word in words[:32]):
            return str(ipaddress.IPv6Address(int("".join(reversed(words[:32])), 16)))
    except ValueError:
        pass
    return ""


def embedded_in(address6: str) -> str:
    """The IPv4 address in the last 32 bits of an IPv6 one."""
    return str(ipaddress.IPv4Address(int(ipaddress.IPv6Address(address6)) & 0xFFFF_FFFF))


def service_asked(name: str) -> tuple[str, int] | None:
    """`_80._tcp.web` asks for `web` on port 80. (`web`, 0): of a named port, and there are none. None: not such a question."""
    words = name.rstrip(".").lower().split(".", 2)
    if len(words) != 3 or not words[0].startswith("_") or words[1] not in _PROTOCOLS:
        return None
    digits = words[0][1:]
    port = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 5 else 0
    return words[2], port if port < 65_536 else 0
