"""Guarded hosts that are told by name are looked up."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from agent.core.clock import RealClock
from agent.core.news import Guard
from agent.network.memory import MemoryNetwork


class Hosts:
    def __init__(self) -> None:
        self.known: dict[str, tuple[str, ...]] = {}

    async def look_up(self, host: str) -> tuple[str, ...]:
        if host not in self.known:
            raise OSError(2, "no such host")
        return self.known[host]


class Network(MemoryNetwork):
    def __init__(self) -> None:
        super().__init__()
        self.given: asyncio.Queue[set[str]] = asyncio.Queue()

    async def guard(self, addresses: Collection[str]) -> None:
        self.given.put_nowait(set(addresses))


async def test_addresses_behind_names_are_guarded_and_kept_while_the_name_is_away() -> None:
    hosts, network = Hosts(), Network()
    guard = Guard(network, RealClock(), hosts.look_up)
    keeping = asyncio.ensure_future(guard.keep())
    hosts.known["etcd.example"] = ("192.0.2.7", "fd00::7")
    try:
        async with asyncio.timeout(10):
            told = {"192.0.2.1:7443", "[fd00::1]:7443", "etcd.example:2379", "away.example:7443"}
            guard.take(whole=True, added=told, removed=())
            behind = {"192.0.2.7:2379", "[fd00::7]:2379"}
            assert await network.given.get() == told | behind
            hosts.known = {"away.example": ("192.0.2.8",)}
            guard.take(whole=False, added=(), removed=["192.0.2.1:7443"])
            assert await network.given.get() == (told | behind | {"192.0.2.8:7443"}) - {"192.0.2.1:7443"}
            guard.take(whole=False, added=(), removed=["etcd.example:2379"])
            assert await network.given.get() == {"[fd00::1]:7443", "away.example:7443", "192.0.2.8:7443"}
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
