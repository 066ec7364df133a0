"""Ports of nodes: who can have one beside whom.

Rules: pure. Two claims clash when protocol and number are the same and their addresses overlap; an empty address, `0.0.0.0` and
`::` are every address. A claim holds for the whole node, whoever has it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
