"""Which tracked UDP connections a change of the tables leaves behind.

UDP has no end of its own: without this a client that keeps its port stays with a replica that is gone, or with the time before
a port was published.

Rules: pure. Each look at the kernel's connections costs some 10 ms on a big machine, however few are found: one for each
frontend that lost somebody, or one for each family when those are several.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from agent.plan.balance import Frontend, Vip
from agent.plan.balance_book import Move, Slots
from agent.plan.nfnl import Connection, Side

LOOKS_MAX: Final = 2

Look = tuple[Side, bool]
"""How connections were addressed, and whether by IPv6."""


@dataclass(slots=True)
class Stale:
    """What is to be forgotten after the moves."""

    by_address: dict[str, frozenset[str]] = field(default_factory=dict)
    """A service's address -> backends it has lost."""
    by_port: dict[tuple[int, bool], frozenset[tuple[str, int]]] = field(default_factory=dict)
    """(number, IPv6) -> backends it has lost."""
    new_ports: set[tuple[int, bool]] = field(default_factory=set)

    def looks(self) -> list[Look]:
        looks = [(Side(target=address), ":" in address) for address in self.by_address]
        looks += [(Side(target_port=number), six) for number, six in self.by_port]
        return looks if len(looks) <= LOOKS_MAX else [(Side(), six) for six in sorted({six for _, six in looks})]

    def concerns(self, found: Connection) -> bool:
        forth, back = found.forth, found.back
        if back.source in self.by_address.get(forth.target, ()):
            return True
        port = (forth.target_port, ":" in forth.target)
        if (back.source, back.source_port) in self.by_port.get(port, ()):
            return True
        return port in self.new_ports and _untranslated(found)


def stale(moves: Iterable[Move]) -> Stale:
    result = Stale()
    for move in moves:
        frontend, lost, new = move.frontend, move.lost, move.before is None
        if isinstance(frontend, Vip):
            if lost:
                before = result.by_address.get(frontend.address, frozenset())
                result.by_address[frontend.address] = before | frozenset(address for address, _ in lost)
        elif frontend.protocol == "udp" and (lost or new):
            port = (frontend.published, frontend.family == 6)
            result.by_port[port] = result.by_port.get(port, frozenset()) | frozenset(lost)
            if new:
                result.new_ports.add(port)
    return result


class Unfinished:
    """What an agent left that was killed after it had changed the tables and before it forgot what that made stale: seen from
    what the tables hold now. `subnets`: of the networks of this node, so that what others translate is left alone."""

    def __init__(self, slots: Mapping[Frontend, Slots], subnets: Iterable[IPv4Network | IPv6Network]) -> None:
        self._by_address: dict[str, set[str]] = {}
        self._by_port: dict[tuple[int, bool], set[tuple[str, int]]] = {}
        self._subnets = tuple(subnets)
        for frontend, rows in slots.items():
            if isinstance(frontend, Vip):
                self._by_address.setdefault(frontend.address, set()).update(backend.address for backend in rows)
            elif frontend.protocol == "udp":
                port = (frontend.published, frontend.family == 6)
                self._by_port.setdefault(port, set()).update((backend.address, backend.port) for backend in rows)

    def looks(self) -> list[Look]:
        return [(Side(), False), (Side(), True)]

    def concerns(self, found: Connection) -> bool:
        forth, back = found.forth, found.back
        if forth.target in self._by_address:
            return back.source not in self._by_address[forth.target]
        port = (forth.target_port, ":" in forth.target)
        if port in self._by_port and _untranslated(found):
            return True
        if (back.source, back.source_port) == (forth.target, forth.target_port):
            return False  # nobody's but its own
        if port in self._by_port:
            return (back.source, back.source_port) not in self._by_port[port] and self._is_ours(back.source)
        return self._is_ours(back.source)

    def _is_ours(self, address: str) -> bool:
        where = ip_address(address)
        return any(where in subnet for subnet in self._subnets)


def _untranslated(found: Connection) -> bool:
    forth, back = found.forth, found.back
    return (back.source, back.target, back.source_port) == (forth.target, forth.source, forth.target_port)
