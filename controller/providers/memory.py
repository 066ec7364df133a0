"""The provider's twin in memory, with faults: for tests and the simulation.

Rules: it makes nothing; `there` says what it would have made. `faults` hold until they are taken away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from controller.decide.machines.types import Listed
from controller.providers.port import Join, Order, ProviderError


class MemoryProvider:
    """`faults` by verb: `fail` raises, `hang` never answers, `lie` says that it is done and does nothing (a list is
    empty then). `made(order, join)` is told of each machine."""

    def __init__(self, made: Callable[[Order, Join], None] = lambda order, join: None) -> None:
        self.there: dict[str, Order] = {}
        self.faults: dict[str, str] = {}
        self.calls: list[tuple[str, str]] = []
        self._made = made

    def missing(self) -> tuple[str, ...]:
        return ()

    async def create(self, order: Order, join: Join) -> str:
        if await self._honest("create", order.node) and order.node not in self.there:
            self.there[order.node] = order
            self._made(order, join)
        return f"m-{order.node}"

    async def delete(self, order: Order) -> None:
        if await self._honest("delete", order.node):
            self.there.pop(order.node, None)

    async def list(self, cluster: str, group: str) -> tuple[Listed, ...]:
        honest = await self._honest("list", group)
        rows = [order for order in self.there.values() if (order.cluster, order.group) == (cluster, group)]
        return tuple(Listed(order.node, f"m-{order.node}") for order in rows) if honest else ()

    async def _honest(self, verb: str, about: str) -> bool:
        self.calls.append((verb, about))
        fault = self.faults.get(verb, "")
        if fault == "fail":
            raise ProviderError(f"{verb}: out of machines")
        if fault == "hang":
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return fault != "lie"
