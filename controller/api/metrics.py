"""/metrics: what this controller counted (controller/metrics.py) and, while it leads, the cluster as it sees it.

Rules: what is told of the cluster is told by the leader alone, so that sums over all controllers are right. Names of services,
groups and policies' metrics are labels; replicas and nodes are not: their agents tell of themselves. Everything is counted and
written in a thread, from one snapshot; a replica is looked at only when its node's documents changed (controller/api/tally.py).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from controller.api import metrics_scaling
from controller.api.context import Api, Call
from controller.api.families import gauge, one
from controller.api.tally import READY, Count, Tally
from controller.decide.replicas import GLOBAL
from controller.loops.picture import Snapshot
from controller.metrics import REGISTRY
from model.documents import DecisionDoc, ServiceDoc
from model.states import COMPLETE, FAILED, REJECTED
from model.version import VERSION


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a scrape tells; `sessions`: agents with an open one; `measured`: of services that scale themselves."""

    snapshot: Snapshot
    leads: bool
    sessions: int
    now_ms: int = 0
    measured: Mapping[str, metrics_scaling.Measured] = field(default_factory=dict)


async def scrape(api: Api, call: Call) -> Response:
    snapshot, leads = api.snapshot(), api.dispatch.leads()
    sessions = sum(session.open for session in api.dispatch.sessions().values())
    measured = await metrics_scaling.measured(snapshot, api.samples, api.measuring) if leads else {}
    facts = Facts(snapshot, leads, sessions, api.now_ms(), measured)
    return Response(await asyncio.to_thread(render, api.tally, facts), media_type=CONTENT_TYPE_LATEST)


def render(tally: Tally, facts: Facts) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Present(tally, facts))
    with tally.turn:
        return generate_latest(REGISTRY) + generate_latest(registry)


class _Present(Collector):
    def __init__(self, tally: Tally, facts: Facts) -> None:
        self._tally, self._facts = tally, facts

    def collect(self) -> Iterator[Metric]:
        yield one("shoal_build_info", "Always 1; the version is the label.", 1, version=VERSION)
        yield one("shoal_leader", "1 while this controller leads.", self._facts.leads)
        yield one("shoal_store_revision", "Newest revision of the store known here.", self._facts.snapshot.index)
        if self._facts.leads:
            yield from _cluster(self._tally, self._facts)


def _cluster(tally: Tally, facts: Facts) -> Iterator[Metric]:
    snapshot = facts.snapshot
    tally.look(snapshot)
    leader = snapshot.one("leader")
    yield one("shoal_epoch", "Grows with every change of leader.", leader.epoch if leader else 0)
    yield one("shoal_sessions", "Agents with an open session.", facts.sessions)
    yield from _nodes(snapshot)
    for kind in ("stacks", "services", "networks", "volumes"):
        yield one(f"shoal_{kind}", f"{kind.capitalize()} there are.", len(snapshot.of(kind)))
    states = [((str(state),), count) for state, count in tally.states().items()]
    yield gauge("shoal_replicas", "Replicas that have a node, by state.", states, "state")
    yield from _services(snapshot, tally.services)
    yield from metrics_scaling.scaling(snapshot, facts.measured, facts.now_ms)
    yield from metrics_scaling.groups(snapshot, facts.now_ms)


# ---- nodes


def _nodes(snapshot: Snapshot) -> Iterator[Metric]:
    nodes, health, statuses = snapshot.of("nodes"), snapshot.of("health"), snapshot.of("status")
    states = {name: health[name].state if name in health else "unreachable" for name in nodes}
    counts = Counter((states[name], doc.availability) for name, doc in nodes.items())
    yield gauge("shoal_nodes", "Nodes by state and availability.", counts.items(), "state", "availability")
    usable = [name for name, doc in nodes.items() if states[name] == "ready" and doc.availability == "active"]
    infos = [statuses[name].info for name in usable if name in statuses]
    yield one("shoal_cluster_cpu_cores", "Cores of nodes that are ready and active.", sum(info.cpus for info in infos))
    memory_bytes = sum(info.memory_bytes for info in infos)
    yield one("shoal_cluster_memory_bytes", "Memory of nodes that are ready and active.", memory_bytes)


# ---- services


def _services(snapshot: Snapshot, counts: Mapping[str, Count]) -> Iterator[Metric]:
    documents: Mapping[str, ServiceDoc] = snapshot.of("services")
    decisions: Mapping[str, DecisionDoc] = snapshot.of("decisions")
    rows = [(name, doc, counts.get(doc.id, {}), decisions.get(name)) for name, doc in sorted(documents.items())]
    wanted = {name: _wanted(doc, count, decision) for name, doc, count, decision in rows}

    def family(name: str, text: str, values: Iterable[tuple[str, float]]) -> Metric:
        return gauge(f"shoal_service_replicas_{name}", text, (((who,), value) for who, value in values), "service")

    yield family("wanted", "Replicas that should run.", wanted.items())
    ready = ((name, _ready(doc, count)) for name, doc, count, _ in rows)
    yield family("ready", "Replicas that run and are healthy, on nodes that are not down; of a job also complete ones.", ready)
    waiting = ((name, max(_waiting(decision), wanted[name] - _held(count))) for name, doc, count, decision in rows)
    yield family("unplaced", "Replicas that should run and have no node.", waiting)
    failed = ((name, count.get(FAILED, 0) + count.get(REJECTED, 0)) for name, _, count, _ in rows)
    yield family("failed", "Replicas that ended badly or cannot start, most of them waiting for their next try.", failed)
    outdated = ((name, _held(count) - count.get(doc.version, 0)) for name, doc, count, _ in rows)
    yield family("outdated", "Replicas of another version than the service's: what an update has still to replace.", outdated)
    cores = (((name,), doc.spec.reservations.cpus) for name, doc, _, _ in rows)
    yield gauge("shoal_service_reserved_cpu_cores", "Cores that one replica reserves.", cores, "service")
    memory_bytes = (((name,), doc.spec.reservations.memory_bytes) for name, doc, _, _ in rows)
    yield gauge("shoal_service_reserved_memory_bytes", "Memory that one replica reserves.", memory_bytes, "service")


def _wanted(doc: ServiceDoc, count: Count, decision: DecisionDoc | None) -> int:
    if doc.stopped:
        return 0
    return _held(count) + _waiting(decision) if doc.spec.mode in GLOBAL else doc.scale


def _ready(doc: ServiceDoc, count: Count) -> int:
    return count.get(READY, 0) + (count.get(COMPLETE, 0) if doc.spec.mode.endswith("job") else 0)


def _held(count: Count) -> int:
    """Replicas on nodes that are not down."""
    return sum(number for key, number in count.items() if isinstance(key, int))


def _waiting(decision: DecisionDoc | None) -> int:
    return len(decision.waiting) if decision is not None else 0
