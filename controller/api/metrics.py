"""/metrics: the counters of controller/metrics.py and gauges computed now, from what the API shows."""

from __future__ import annotations

from collections import Counter

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from controller.api import rows
from controller.api.context import Api
from controller.metrics import REGISTRY


def exposition(api: Api) -> bytes:
    registry = CollectorRegistry()
    snapshot = api.snapshot()
    leader = snapshot.one("leader")
    _one(registry, "shoal_leader", "1 while this controller leads", leader is not None and leader.controller == api.name)
    _one(registry, "shoal_epoch", "Epoch of the present leader", leader.epoch if leader else 0)
    sessions = api.dispatch.sessions()
    _one(registry, "shoal_sessions", "Open sessions of agents", sum(session.open for session in sessions.values()))
    _one(registry, "shoal_services", "Services", len(snapshot.of("services")))
    _one(registry, "shoal_store_index", "Newest revision of the store in the picture", snapshot.index)
    _many(registry, "shoal_nodes", "Nodes by state", "state", Counter(row["state"] for row in rows.nodes(api)))
    _many(registry, "shoal_replicas", "Replicas by state", "state", Counter(row["state"] for row in rows.replicas(api)))
    return generate_latest(REGISTRY) + generate_latest(registry)


def _one(registry: CollectorRegistry, name: str, text: str, value: float) -> None:
    Gauge(name, text, registry=registry).set(value)


def _many(registry: CollectorRegistry, name: str, text: str, label: str, counts: Counter[str]) -> None:
    gauge = Gauge(name, text, [label], registry=registry)
    for value, count in sorted(counts.items()):
        gauge.labels(value).set(count)
