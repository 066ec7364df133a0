"""The port between the agent's core and its load balancer: services' addresses and published ports, in the kernel.

Rules: endpoints are taken in the order of the session and applied soon, several in one transaction; what was applied is
acknowledged by number. New connections go to ready replicas only; existing ones stay where they are. Published ports of mode
ingress come with the endpoints of the network `ingress`, those of mode host from this node's own replicas.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from agent.plan.names import EndpointsMessage
from agent.plan.network import LinkPlan

Place = tuple[str, str]
"""(network, IPv4 address without prefix length)"""


@dataclass(frozen=True, slots=True)
class LocalPort:
    """One published port of mode host. `published` 0: any free one (from 32768 on). `host_ip` empty: every address."""

    protocol: str
    target: int
    address: str
    published: int = 0
    host_ip: str = ""
    published_end: int = 0


class Traffic(NamedTuple):
    """What was balanced on this node to one replica since its endpoint is known. Packets and bytes: to it, and back."""

    service_id: str
    service: str
    replica: str
    address: str
    connections: int = 0
    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0
    open: int = 0
    """TCP connections, when they were counted last (`load` only)."""


class Balancer(Protocol):
    """The node's load balancer."""

    def take(self, message: EndpointsMessage) -> None:
        """News of a network (or of `ingress`); applied soon."""

    def networks(self, plans: Mapping[str, LinkPlan]) -> None:
        """The networks this node takes part in now; what is known of others is forgotten, but for `ingress`."""

    async def applied(self, beyond: int) -> int:
        """Waits until a number greater than `beyond` is applied, and gives it."""

    def floor(self, number: int) -> None:
        """Every node with a session follows the endpoints up to `number`. 0 with a new session: nothing is known yet."""

    def forgotten(self, network: str, address: str) -> bool:
        """Whether no node sends anything there any more, so that the address may be given to another container."""

    async def drained(self, places: Collection[Place], within_s: float) -> None:
        """Waits until no node begins connections to these places any more (a bounded time), then until the open ones have
        ended, all together at most `within_s`. Returns at once for places nobody was told of."""

    def publish(self, sandbox: str, ports: Collection[LocalPort], name: str = "") -> tuple[LocalPort, ...]:
        """The ports of mode host of one replica, all of them, each time (none: taken back); with the numbers they got. Raises
        Conflict naming who has a port that is taken: `name` is what a person calls this replica."""

    async def held(self, beyond: Mapping[str, int]) -> Mapping[str, int]:
        """Waits until other callers of sleeping services are held on this node than `beyond`; service id -> how many."""

    async def traffic(self) -> tuple[Traffic, ...]:
        """Counts for each replica that is or was known; of those that went it is the last word."""

    async def load(self) -> tuple[Traffic, ...]:
        """The same of the replicas that are known now, with open connections; takes nobody's last word."""

    async def repair(self) -> tuple[str, ...]:
        """Put back what somebody removed; a sentence for each thing repaired."""

    async def close(self, *, remove: bool = False) -> None:
        """Let go of sockets; with `remove` take every rule away."""


class NoBalancer:
    """For nodes without one (tests, the simulation): everything is applied and forgotten at once."""

    def __init__(self) -> None:
        self._number = 0
        self._news = asyncio.Event()

    def take(self, message: EndpointsMessage) -> None:
        self._number = max(self._number, message.number)
        self._news.set()

    def networks(self, plans: Mapping[str, LinkPlan]) -> None:
        """Nothing to keep."""

    async def applied(self, beyond: int) -> int:
        while self._number <= beyond:
            self._news.clear()
            await self._news.wait()
        return self._number

    def floor(self, number: int) -> None:
        """Nothing waits for it."""

    def forgotten(self, network: str, address: str) -> bool:
        return True

    async def drained(self, places: Collection[Place], within_s: float) -> None:
        """Nobody calls."""

    def publish(self, sandbox: str, ports: Collection[LocalPort], name: str = "") -> tuple[LocalPort, ...]:
        return tuple(ports)

    async def held(self, beyond: Mapping[str, int]) -> Mapping[str, int]:
        await asyncio.Event().wait()
        return {}

    async def traffic(self) -> tuple[Traffic, ...]:
        return ()

    async def load(self) -> tuple[Traffic, ...]:
        return ()

    async def repair(self) -> tuple[str, ...]:
        return ()

    async def close(self, *, remove: bool = False) -> None:
        """Nothing was opened."""
