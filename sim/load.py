"""The load of services that scale themselves, from the seed: it comes through the nodes' load balancers and ends in time.

Rules: only ports are replaced: the balancer's counts, a Prometheus, and what a node's sensors say when they are at fault.
Agents measure, send and hold callers, controllers keep, decide and wake with their own code.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import pairwise
from math import nan
from typing import Any, Final, NamedTuple

from agent.core.runner import Runner
from agent.core.sampling import Reading, Sampler
from agent.network.balance_memory import MemoryBalancer
from agent.network.balance_port import Traffic
from controller.prometheus.memory import MemoryPrometheus
from controller.prometheus.port import NoAnswer
from model.documents import ServiceDoc
from model.ports import Clock
from protos import node_pb2 as pb
from sim.chance import Chance
from sim.loop import VirtualLoop

RATES: Final = (0.0, 0.0, 8.0, 25.0, 45.0, 70.0)
"""Connections per second of all callers of a service; each for a while."""
LASTS_S: Final = (15.0, 50.0)
KEPT_S: Final = 200.0
WRONG: Final = (nan, -5.0, 1e12, 1e18)


class Flow(NamedTuple):
    """Connections that a node's balancer has counted for a service between two moments."""

    since_s: float
    until_s: float
    node: str
    connections: float


class Load:
    """`rate` and `share` of a service by its full name: how many callers it has, and how many of them are on a node. `flows`:
    what balancers have counted, the newest last. `courses`: (until, rate); of those that stand there nothing is drawn."""

    def __init__(
        self, loop: VirtualLoop, chance: Chance, nodes: Sequence[str], services: Mapping[str, ServiceDoc], ends_s: float
    ) -> None:
        self.courses: dict[str, tuple[tuple[float, float], ...]] = {}
        self.flows: dict[str, deque[Flow]] = {}
        self.now_s = loop.time
        self._chance = chance
        self._nodes = tuple(nodes)
        self._services = services
        self._ends_s = ends_s
        self._shares: dict[str, dict[str, float]] = {}

    def calls(self, service: str) -> bool:
        """Whether it has callers at all."""
        document = self._services.get(service)
        return document is not None and document.spec.autoscale is not None

    def rate(self, service: str, at_s: float) -> float:
        return next((rate for until_s, rate in self._course(service) if at_s < until_s), 0.0)

    def peak(self, service: str, since_s: float, until_s: float) -> float:
        """The largest rate between the two."""
        begins = pairwise([(0.0, 0.0), *self._course(service)])
        return max((rate for (begin, _), (end, rate) in begins if begin <= until_s and end > since_s), default=0.0)

    def share(self, service: str, node: str) -> float:
        shares = self._shares.get(service)
        if shares is None:
            rng = self._chance.stream(f"load/{service}/from")
            drawn = {name: rng.choice((0, 1, 1, 3)) for name in self._nodes}
            drawn = drawn if any(drawn.values()) else dict.fromkeys(drawn, 1)
            shares = self._shares[service] = {name: part / sum(drawn.values()) for name, part in drawn.items()}
        return shares[node]

    def between(self, service: str, since_s: float, until_s: float) -> float:
        """Connections of all callers."""
        total, begin = 0.0, 0.0
        for end, rate in self._course(service):
            total += rate * max(0.0, min(end, until_s) - max(begin, since_s))
            begin = end
        return total

    def counted(self, flow: Flow, service: str) -> None:
        flows = self.flows.setdefault(service, deque())
        flows.append(flow)
        while flows[0].until_s < flow.until_s - KEPT_S:
            flows.popleft()

    def _course(self, service: str) -> tuple[tuple[float, float], ...]:
        found = self.courses.get(service)
        if found is None:
            rng, at_s, rows = self._chance.stream(f"load/{service}"), 0.0, []
            while at_s < self._ends_s:
                at_s = min(self._ends_s, at_s + rng.uniform(*LASTS_S))
                rows.append((at_s, rng.choice(RATES)))
            found = self.courses[service] = tuple(rows)
        return found


class LoadedBalancer(MemoryBalancer):
    """Counts the connections of its node's callers."""

    def __init__(self, node: str, clock: Clock, load: Load | None, *more: Any, **options: Any) -> None:
        super().__init__(node, clock, *more, **options)
        self._node = node
        self._load = load
        self._counts: dict[tuple[str, str], float] = {}
        self._counted_s: dict[str, float] = {}
        """By service: since when its callers find a replica."""

    async def load(self) -> tuple[Traffic, ...]:
        rows = await super().load()
        if self._load is None:
            return rows
        now_s, replicas = self._load.now_s(), Counter(row.service for row in rows if self._load.calls(row.service))
        for service, count in replicas.items():
            since_s = self._counted_s.get(service, now_s)
            came = self._load.between(service, since_s, now_s) * self._load.share(service, self._node)
            if came:
                self._load.counted(Flow(since_s, now_s, self._node, came), service)
            for row in rows:
                if row.service == service:
                    self._counts[service, row.address] = self._counts.get((service, row.address), 0.0) + came / count
        self._counted_s = dict.fromkeys(replicas, now_s)
        return tuple(self._told(row) for row in rows)

    def _told(self, row: Traffic) -> Traffic:
        count = self._counts.get((row.service, row.address), 0.0)
        return row._replace(connections=int(count)) if count else row


@dataclass(slots=True)
class Sensors:
    """What is wrong with a machine's: nothing is sent, so many seconds late, or `wrong` instead of each number."""

    missing_since_s: float = -1.0
    late_s: float = 0.0
    wrong: float = 0.0
    troubled_s: float = -1.0
    """When something was last wrong with them."""

    @property
    def fail(self) -> bool:
        return self.missing_since_s >= 0 or self.late_s > 0 or self.wrong != 0


class SimSampler(Sampler):
    """The agent's own; its sensors may be at fault. What reads them may not: `failed` is told, where a real agent goes on."""

    def __init__(self, runner: Runner, clock: Clock, sensors: Sensors, failed: Callable[[BaseException], None]) -> None:
        super().__init__(runner, clock)
        self._its_clock = clock
        self._sensors = sensors
        self._failed = failed

    async def _try_read(self) -> Reading | None:
        try:
            return await self._read()
        except Exception as error:
            self._failed(error)
            return None

    async def every(self, seconds: float) -> AsyncGenerator[pb.Samples, None]:
        async with aclosing(super().every(seconds)) as found:
            async for samples in found:
                if self._sensors.late_s:
                    await self._its_clock.sleep(self._sensors.late_s)
                if self._sensors.missing_since_s < 0:
                    if self._sensors.wrong:
                        _spoil(samples, self._sensors.wrong)
                    yield samples


def _spoil(samples: pb.Samples, number: float) -> None:
    samples.node.cpu_cores = number
    for row in samples.replicas:
        row.cpu_cores = number
    for flow in samples.traffic:
        flow.connections_per_s = number


class SimPrometheus(MemoryPrometheus):
    """Knows the load of each service: the query is the service's name. It may be slow, or not answer."""

    def __init__(self, load: Load) -> None:
        super().__init__()
        self.slow_s = 0.0
        self.away = False
        self._load = load

    async def ask(self, url: str, query: str) -> float:
        await asyncio.sleep(0.01 + self.slow_s)
        if self.away:
            raise NoAnswer("it cannot be reached")
        self.answers = {query: [self._load.rate(query, self._load.now_s())]}
        self.asked.clear()
        return await super().ask(url, query)
