"""Waiting until nobody begins connections to a replica any more, and until the open ones have ended.

Rules: bounded, both parts together. Looking at the kernel's connections costs the more the more there are, and many replicas
may drain at once: a look that took long is followed by a longer rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final

from agent.network.balance_port import Place
from agent.plan.forget import Forgetting
from model.addresses import embedded
from model.ports import Clock

FORGOTTEN_WITHIN_S: Final = 2.0
LOOK_EVERY_S: Final = 0.05
LOOK_SHARE: Final = 4

OpenConnections = Callable[[Iterable[str]], Mapping[str, int]]
"""How many are open to each address; called in threads."""


class Draining:
    """`prefix6_of`: the IPv6 prefix of a network, empty without one."""

    def __init__(
        self, forgetting: Forgetting, open_connections: OpenConnections, prefix6_of: Callable[[str], str], clock: Clock
    ) -> None:
        self._forgetting = forgetting
        self._open_connections = open_connections
        self._prefix6_of = prefix6_of
        self._clock = clock

    async def drained(self, places: Collection[Place], within_s: float) -> None:
        told = [place for place in places if self._forgetting.told(place)]
        if told:
            end = self._clock.monotonic() + within_s
            await self._forgotten(told, min(end, self._clock.monotonic() + FORGOTTEN_WITHIN_S))
            await self._ended([found for place in told for found in self._addresses(place)], end)

    async def _forgotten(self, places: Collection[Place], by: float) -> None:
        while (now := self._clock.monotonic()) < by:
            if all(self._forgetting.forgotten(place, now) for place in places):
                return
            await self._clock.sleep(LOOK_EVERY_S)

    async def _ended(self, addresses: Collection[str], by: float) -> None:
        while (begin := self._clock.monotonic()) < by:
            found = await asyncio.to_thread(self._open_connections, addresses)
            if not any(found.values()):
                return
            now = self._clock.monotonic()
            await self._clock.sleep(min(max(LOOK_EVERY_S, LOOK_SHARE * (now - begin)), max(0.0, by - now)))

    def _addresses(self, place: Place) -> Iterator[str]:
        network, address = place
        yield address
        if prefix6 := self._prefix6_of(network):
            yield embedded(prefix6, address)
