"""Ports of nodes: who can have one beside whom.

Rules: pure. Two claims clash when protocol and number are the same and their addresses overlap; an empty address, `0.0.0.0` and
`::` are every address. A claim holds for the whole node, whoever has it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})


class PortClaim(NamedTuple):
    """One port of a node. `host_ip` empty: on every address."""

    protocol: str
    number: int
    host_ip: str = ""

    @property
    def text(self) -> str:
        """`8080/tcp`"""
        return f"{self.number}/{self.protocol}"


def overlap(one: str, other: str) -> bool:
    """Whether two addresses to listen on have one in common."""
    return one == other or one in EVERYWHERE or other in EVERYWHERE


def first_taken(wanted: Sequence[PortClaim], taken: Collection[PortClaim]) -> PortClaim | None:
    """The first of `wanted` that clashes with one of `taken`."""
    return next((claim for claim in wanted if any(clash(claim, other) for other in taken)), None)


def clash(one: PortClaim, other: PortClaim) -> bool:
    return one.number == other.number and one.protocol == other.protocol and overlap(one.host_ip, other.host_ip)


class Holders:
    """Who has which port: the nodes by number. `claims` by node name; `at`: the nodes' numbers."""

    def __init__(self, at: Mapping[str, int], claims: Mapping[str, Collection[PortClaim]]) -> None:
        self._at, self._claims = at, claims
        self._table: dict[tuple[str, int], dict[int, list[PortClaim]]] | None = None

    def taken(self, i: int, wanted: Sequence[PortClaim]) -> str:
        """A port of these that somebody has on the node (`8080/tcp`), or ""."""
        return next((port.text for port in wanted if first_taken([port], self._of(port).get(i, ()))), "")

    def clashing(self, wanted: Sequence[PortClaim]) -> set[int]:
        """The nodes where one of these is taken."""
        return {i for port in wanted for i, claims in self._of(port).items() if first_taken([port], claims)}

    def add(self, i: int, ports: Sequence[PortClaim]) -> None:
        for port in ports:
            self._of(port).setdefault(i, []).append(port)

    def remove(self, i: int, ports: Sequence[PortClaim]) -> None:
        for port in ports:
            self._of(port)[i].remove(port)

    def _of(self, wanted: PortClaim) -> dict[int, list[PortClaim]]:
        """By node who has this number, on whatever address. Made when somebody asks: few services have ports."""
        if self._table is None:
            self._table = {}
            for name, claims in self._claims.items():
                for port in claims if name in self._at else ():
                    numbers = self._table.setdefault((port.protocol, port.number), {})
                    numbers.setdefault(self._at[name], []).append(port)
        return self._table.setdefault((wanted.protocol, wanted.number), {})
