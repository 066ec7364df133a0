"""What a session tells beside the desired state: who can be reached, and which addresses no container may reach.

Rules: endpoints are given to the name server and to the load balancer in the order they come, and acknowledged when both follow
them. Numbers hold for one session. Guarded addresses are given whole, the newest only, and tried again when that fails. Hosts
that are told by name are looked up, again and again; one that cannot be found keeps the addresses it had.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from agent.core.ports import Ports
from agent.network.port import NetworkDriver
from agent.plan.names import EndpointsMessage
from model.errors import ShoalError
from model.ports import Clock

log = logging.getLogger(__name__)
GUARD_AGAIN_S: Final = 1.0
LOOK_UP_EVERY_S: Final = 60.0
LOOK_UP_WITHIN_S: Final = 2.0

LookUp = Callable[[str], Awaitable[tuple[str, ...]]]
"""The addresses of a host; raises OSError when it cannot be found."""


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

    def __init__(self, network: NetworkDriver, clock: Clock, look_up: LookUp | None = None) -> None:
        self._network = network
        self._clock = clock
        self._look_up = look_up or _looked_up
        self._addresses: dict[str, None] = {}
        self._names: dict[str, None] = {}
        """Those among them whose host has to be looked up."""
        self._found: dict[str, tuple[str, ...]] = {}
        self._news = asyncio.Event()

    def take(self, whole: bool, added: Iterable[str], removed: Iterable[str]) -> None:
        if whole:
            self._addresses.clear()
            self._names.clear()
        for address in removed:
            self._addresses.pop(address, None)
            self._names.pop(address, None)
        for address in added:
            self._addresses[address] = None
            if _is_name(address):
                self._names[address] = None
        self._news.set()

    async def keep(self) -> None:
        """Give every change to the network, one at a time."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_UP_EVERY_S if self._found else None):
                    await self._news.wait()
            self._news.clear()
            try:
                await self._network.guard(await self._looked_up())
            except ShoalError as error:
                log.warning("guarded addresses: %s; tried again", error)
                self._news.set()
                await self._clock.sleep(GUARD_AGAIN_S)
            except BaseException:
                self._news.set()  # cut off in the middle: the next session gives it again
                raise

    async def _looked_up(self) -> tuple[str, ...]:
        """The addresses as they were told, and those behind names."""
        names = [*self._names]
        self._found = {text: self._found.get(text, ()) for text in names}
        for text in names:
            host, _, port = text.rpartition(":")
            try:
                async with asyncio.timeout(LOOK_UP_WITHIN_S):
                    found = await self._look_up(host)
            except OSError as error:
                log.warning("guarded host %s cannot be found: %s", host, error.strerror or "nobody answers")
            else:
                self._found[text] = tuple(f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip in found)
        return tuple(dict.fromkeys((*self._addresses, *(row for rows in self._found.values() for row in rows))))


def _is_name(text: str) -> bool:
    host, _, port = text.rpartition(":")
    try:
        if ":" in host:
            ipaddress.ip_address(host.strip("[]"))
        else:
            socket.inet_pton(socket.AF_INET, host)  # every node is told of every other one: the quick way
    except (ValueError, OSError):
        return bool(host and port)
    return False


async def _looked_up(host: str) -> tuple[str, ...]:
    rows = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(row[4][0]) for row in rows))
