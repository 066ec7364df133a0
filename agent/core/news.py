"""What a session tells beside the desired state: who can be reached, and which addresses no container may reach.

Rules: endpoints are given to the name server and to the load balancer in the order they come, and acknowledged when both follow
them. Numbers hold for one session. Guarded addresses are given whole, the newest only, and tried again when that fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from agent.core.ports import Ports
from agent.network.port import NetworkDriver
from agent.plan.names import EndpointsMessage
from model.errors import ShoalError
from model.ports import Clock

log = logging.getLogger(__name__)
GUARD_AGAIN_S: Final = 1.0


class EndpointNews:
    """One session's. A new controller counts from the beginning: what the last one told says nothing about its numbers."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._told = 0
        self._acked = 0
        self._news = asyncio.Event()
        ports.balance.floor(0)

    def take(self, message: EndpointsMessage) -> None:
        self._ports.names.take(message)
        self._ports.balance.take(message)
        self._told = max(self._told, message.number)
        self._news.set()

    async def followed(self) -> int:
        """The next number that this node follows; never one that was not told in this session."""
        while True:
            while self._told <= self._acked:
                self._news.clear()
                await self._news.wait()
            applied = await self._ports.balance.applied(self._acked)
            number = min(self._told, applied)
            if number > self._acked:
                self._acked = number
                return number


class Guard:
    """The set as it was told last; it holds over sessions."""

    def __init__(self, network: NetworkDriver, clock: Clock) -> None:
        self._network = network
        self._clock = clock
        self._addresses: dict[str, None] = {}
        self._news = asyncio.Event()

    def take(self, whole: bool, added: Iterable[str], removed: Iterable[str]) -> None:
        if whole:
            self._addresses.clear()
        for address in removed:
            self._addresses.pop(address, None)
        self._addresses |= dict.fromkeys(added)
        self._news.set()

    async def keep(self) -> None:
        """Give every change to the network, one at a time."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._network.guard(tuple(self._addresses))
            except ShoalError as error:
                log.warning("guarded addresses: %s; tried again", error)
                self._news.set()
                await self._clock.sleep(GUARD_AGAIN_S)
            except BaseException:
                self._news.set()  # cut off in the middle: the next session gives it again
                raise
