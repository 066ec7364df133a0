"""Which tracked UDP connections a change of the tables leaves behind.

UDP has no end of its own: without this a client that keeps its port stays with a replica that is gone, or with the time before
a port was published.

Rules: pure. Each look at the kernel's connections costs some 10 ms on a big machine, however few are found: one for each
frontend that lost somebody, or one for each family when those are several.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from agent.plan.balance import Vip
from agent.plan.balance_book import Move
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
        untranslated = (back.source, back.target, back.source_port) == (forth.target, forth.source, forth.target_port)
        return untranslated and port in self.new_ports


def stale(moves: Iterable[Move]) -> Stale:
    result = Stale()
    for move in moves:
        frontend, lost, new = move.frontend, move.lost, move.before is None
        if isinstance(frontend, Vip):
            if lost:
                result.by_address[frontend.address] = frozenset(address for address, _ in lost)
        elif frontend.protocol == "udp" and (lost or new):
            port = (frontend.published, frontend.family == 6)
            result.by_port[port] = result.by_port.get(port, frozenset()) | frozenset(lost)
            if new:
                result.new_ports.add(port)
    return result
