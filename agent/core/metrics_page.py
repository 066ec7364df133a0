"""The agent's /metrics: its counters, and the node as it stands now.

Rules: replicas are named here and nowhere else: there are as many as this node runs. Reading one costs about 0.1 ms, so nothing
is read before somebody asks. What the balancer counted goes with its rules when a replica goes: only what was added since the
last look is taken over, so that a service's counters never go back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.core.metrics import AgentMetrics
from agent.core.runner import Runner
from agent.network.balance_port import Traffic
from agent.plan.container import Usage
from agent.plan.records import Life
from model.documents import NodeInfo
from model.version import VERSION

Row = tuple[Sequence[str], float]


@dataclass(frozen=True, slots=True)
class Now:
    """One look at the node."""

    info: NodeInfo
    lives: Sequence[Life]
    usage: Sequence[tuple[Life, Usage]]
    balanced: Mapping[str, Balanced]
    networks: int
    images: int
    image_bytes: int


@dataclass(slots=True)
class Balanced:
    """What this node balanced to a service's replicas since the agent began."""

    connections: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class Page:
    """`await text()`. `stored_bytes`: what all images take."""

    def __init__(self, metrics: AgentMetrics, runner: Runner, info: NodeInfo, stored_bytes: Callable[[], int]) -> None:
        self._metrics, self._runner, self._info, self._stored_bytes = metrics, runner, info, stored_bytes
        self._balanced = BalancedTotals()

    async def text(self) -> bytes:
        runner, found = self._runner, []
        lives = list(runner.core.lives.values())
        for life in lives:
            usage = await runner.ports.runtime.usage(life.container_id) if life.stage == "running" else None
            if usage is not None:
                found.append((life, usage))
        self._balanced.take(await runner.ports.balance.traffic())
        images = runner.ports.images.list()
        now = Now(
            self._info, lives, found, self._balanced.services, len(runner.core.desired.networks), len(images),
            self._stored_bytes(),
        )  # fmt: skip
        return await asyncio.to_thread(render, self._metrics, now)


class BalancedTotals:
    """By service, of services that were called from here."""

    def __init__(self) -> None:
        self.services: dict[str, Balanced] = {}
        self._last: dict[tuple[str, str, str], Traffic] = {}

    def take(self, rows: Iterable[Traffic]) -> None:
        last, self._last = self._last, {}
        for row in rows:
            key = (row.service_id, row.replica, row.address)
            self._last[key] = row
            before = last.get(key)
            if before is None or before.connections > row.connections:  # another replica by that address: it began at 0
                before = Traffic(row.service_id, row.service, row.replica, row.address)
            if row.connections or row.bytes_in:
                total = self.services.setdefault(row.service, Balanced())
                total.connections += row.connections - before.connections
                total.bytes_in += max(0, row.bytes_in - before.bytes_in)
                total.bytes_out += max(0, row.bytes_out - before.bytes_out)


def render(metrics: AgentMetrics, now: Now) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Present(now))
    return generate_latest(metrics.registry) + generate_latest(registry)


class _Present(Collector):
    def __init__(self, now: Now) -> None:
        self._now = now

    def collect(self) -> Iterator[Metric]:
        yield _gauge("shoal_build_info", "Always 1; the version is the label.", [((VERSION,), 1)], "version")
        yield from _node(self._now)
        yield from _containers(self._now)
        yield from _balanced(self._now.balanced)


def _node(now: Now) -> Iterator[Metric]:
    wanted = [life.spec.reservations for life in now.lives if life.goal == "run"]
    cpu_cores, memory_bytes = sum(row.cpus for row in wanted), sum(row.memory_bytes for row in wanted)
    for name, text, value in (
        ("node_cpu_cores", "Cores this node offers.", now.info.cpus),
        ("node_memory_bytes", "Memory this node offers.", now.info.memory_bytes),
        ("node_reserved_cpu_cores", "Cores reserved by replicas that are to run here.", cpu_cores),
        ("node_reserved_memory_bytes", "Memory reserved by replicas that are to run here.", memory_bytes),
        ("node_networks", "Networks this node takes part in.", now.networks),
        ("images", "Images on this node.", now.images),
        ("image_bytes", "Size of the layers of all images on this node; each counts once.", now.image_bytes),
    ):
        yield _gauge(f"shoal_{name}", text, [((), value)])


def _containers(now: Now) -> Iterator[Metric]:
    states = Counter(life.state for life in now.lives)
    by_state = [((state,), count) for state, count in sorted(states.items())]
    yield _gauge("shoal_containers", "Replicas on this node, by state.", by_state, "state")
    names = [(life.spec.name, life.name) for life, _ in now.usage]
    usage = [row for _, row in now.usage]
    for name, text, values in (
        ("memory_bytes", "Working set: memory without what the kernel can drop.", [row.memory_bytes for row in usage]),
        ("memory_limit_bytes", "Memory it may have; 0: no limit.", [row.memory_limit_bytes for row in usage]),
        ("processes", "Processes and threads.", [row.pids for row in usage]),
    ):
        yield _gauge(f"shoal_container_{name}", text, zip(names, values, strict=True), "service", "replica")
    for name, text, amounts in (
        ("cpu_seconds", "Processor time used by the present container.", [row.cpu_s for row in usage]),
        ("throttled_seconds", "Time for which the processor limit held it back.", [row.throttled_s for row in usage]),
        ("oom_kills", "Processes that were killed for want of memory.", [float(row.oom_kills) for row in usage]),
    ):
        yield _counter(f"shoal_container_{name}", text, zip(names, amounts, strict=True), "service", "replica")


def _balanced(services: Mapping[str, Balanced]) -> Iterator[Metric]:
    rows = sorted(services.items())
    connections = [((name,), row.connections) for name, row in rows]
    yield _counter("shoal_balanced_connections", "Connections this node began to a service's replicas.", connections, "service")
    sides = [((name, side), number) for name, row in rows for side, number in (("in", row.bytes_in), ("out", row.bytes_out))]
    yield _counter("shoal_balanced_bytes", "Bytes of these, to replicas (in) and back (out).", sides, "service", "direction")


def _gauge(name: str, text: str, rows: Iterable[Row], *labels: str) -> Metric:
    return _filled(GaugeMetricFamily(name, text, labels=labels), rows)


def _counter(name: str, text: str, rows: Iterable[Row], *labels: str) -> Metric:
    return _filled(CounterMetricFamily(name, text, labels=labels), rows)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, rows: Iterable[Row]) -> Metric:
    for labels, value in rows:
        family.add_metric(labels, value)
    return family
