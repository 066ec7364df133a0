"""What the agent counts as it goes, in Prometheus' words; only where `--metrics` was said is any of it made.

Rules: nothing of the agent knows that it is counted: reports, events and the session's stream are watched on their way.
Counters begin at 0 with the process. Labels are services and a few words; they are as many as have run on this node.
docs/metrics.md has the list.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from agent.core.report import Reporter
from agent.core.stream import ControllerStream, Dial
from agent.plan.records import Life, ReplicaId
from model.documents import Event, ReplicaStatus
from model.states import PREPARING, RUNNING, STARTING
from protos import node_pb2 as pb

disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each counter, which nobody asks for
_START_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_PULL_S: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class AgentMetrics:
    """One process's counters and the registry they stand in."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.session = Gauge("shoal_agent_session", "1 while a session with the leader is open.", registry=registry)
        self.sessions = Counter("shoal_agent_sessions", "Sessions with a leader that began.", registry=registry)
        self.messages = Counter(
            "shoal_agent_messages", "Messages of the session, by direction (sent, received) and kind.", ["direction", "kind"],
            registry=registry,
        )  # fmt: skip
        self.sample_seconds = Gauge(
            "shoal_agent_sample_interval_seconds", "How often the leader wants measurements; 0: never.", registry=registry
        )
        self.events = Counter("shoal_agent_events", "What was told of this node and its replicas.", ["kind"], registry=registry)
        self.restarts = Counter(
            "shoal_container_restarts", "Containers that ended and were started again.", ["service"], registry=registry
        )
        self.start_seconds = Histogram(
            "shoal_container_start_seconds", "From the first step of a start (the image's) until the process runs.",
            buckets=_START_S, registry=registry,
        )  # fmt: skip
        self.pulls = Counter(
            "shoal_image_pulls", "Images that were wanted: present already, fetched, or failed.", ["result"], registry=registry
        )
        self.pull_seconds = Histogram(
            "shoal_image_pull_seconds", "Time to fetch and unpack an image.", buckets=_PULL_S, registry=registry
        )
        self.fetched_bytes = Counter("shoal_image_fetched_bytes", "Bytes of layers read from registries.", registry=registry)
        self.peers_bytes = Counter(
            "shoal_image_peers_bytes", "Bytes of layers read from other nodes, as far as they were good.", registry=registry
        )
        self.layers = Counter(
            "shoal_image_layers", "Layers of fetched images, by where they came from (cache, peer, registry).", ["source"],
            registry=registry,
        )  # fmt: skip


LifeOf = Callable[[ReplicaId], Life | None]


class WatchedReporter(Reporter):
    """What is reported is counted."""

    def __init__(self, metrics: AgentMetrics, life_of: LifeOf) -> None:
        super().__init__()
        self._metrics, self._life_of = metrics, life_of
        self._seen: dict[ReplicaId, ReplicaStatus] = {}
        self._began_ms: dict[ReplicaId, int] = {}

    def changed(self, status: ReplicaStatus) -> None:
        super().changed(status)
        replica = ReplicaId(status.service_id, status.slot, status.created_ms, status.version)
        before = self._seen.get(replica)
        self._seen[replica] = status
        self._count_restarts(replica, before, status)
        if status.state == PREPARING:
            self._began_ms.setdefault(replica, status.since_ms)
        elif status.state != STARTING:
            began_ms = self._began_ms.pop(replica, None)
            if began_ms is not None and status.state == RUNNING:
                self._metrics.start_seconds.observe(max(0, status.since_ms - began_ms) / 1000)

    def _count_restarts(self, replica: ReplicaId, before: ReplicaStatus | None, status: ReplicaStatus) -> None:
        more = status.restarts - before.restarts if before is not None else 0
        life = self._life_of(replica)
        if more > 0 and life is not None:
            self._metrics.restarts.labels(life.spec.name).inc(more)

    def gone(self, replica: ReplicaId) -> None:
        super().gone(replica)
        self._seen.pop(replica, None)
        self._began_ms.pop(replica, None)

    def event(self, event: Event) -> None:
        super().event(event)
        self._metrics.events.labels(event.kind).inc()


def watched(dial: Dial, metrics: AgentMetrics) -> Dial:
    """The same way to the controller, counted."""

    @asynccontextmanager
    async def dialled(address: str) -> AsyncIterator[ControllerStream]:
        async with dial(address) as stream:
            try:
                yield _WatchedStream(stream, metrics)
            finally:
                metrics.session.set(0)

    return dialled


class _WatchedStream:
    def __init__(self, stream: ControllerStream, metrics: AgentMetrics) -> None:
        self._stream, self._metrics = stream, metrics

    async def write(self, message: pb.FromNode) -> None:
        await self._stream.write(message)
        self._metrics.messages.labels("sent", message.WhichOneof("kind") or "").inc()

    async def read(self) -> pb.ToNode | None:
        message = await self._stream.read()
        kind = message.WhichOneof("kind") if message is not None else None
        if message is None or kind is None:
            return message
        self._metrics.messages.labels("received", kind).inc()
        if kind == "welcome":
            self._metrics.sessions.inc()
            self._metrics.session.set(1)
            self._metrics.sample_seconds.set(message.welcome.sample_s)
        return message
