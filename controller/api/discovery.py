"""What there is to scrape, in the form of Prometheus' HTTP service discovery: controllers, agents, and replicas' own metrics.

Rules: a target is told as long as it may be up, also when it does not answer: that is what `up` is for. Replicas are reached
through the agent of their node, because their addresses exist on nodes only: the target is the agent, the path names the
replica. Only services that say `x-metrics` have such targets.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from controller.api.context import Api, Call
from controller.decide.replicas import GLOBAL
from controller.decide.wording import replica_name
from controller.loops.picture import Snapshot
from model.documents import ControllerDoc, ReplicaStatus, ServiceDoc, StatusDoc
from model.states import RUNNING

Kind = Literal["controllers", "agents", "replicas"]
Group = dict[str, Any]
"""`targets` as host:port and `labels`; several targets of one group have the same labels."""


async def prometheus(api: Api, call: Call) -> list[Group]:
    """Replicas are counted in a thread: there may be many."""
    snapshot = api.snapshot()
    match call.query["kind"]:
        case "controllers":
            return controllers(snapshot)
        case "agents":
            return agents(snapshot)
        case _:
            return await asyncio.to_thread(replicas, snapshot)


def controllers(snapshot: Snapshot) -> list[Group]:
    rows: list[ControllerDoc] = [row for _, row in sorted(snapshot.of("controllers").items()) if row.api]
    return [{"targets": [urlsplit(row.api).netloc], "labels": {"controller": row.name}} for row in rows]


def agents(snapshot: Snapshot) -> list[Group]:
    """Of nodes whose agent tells its metrics and that are not down."""
    return [{"targets": [address], "labels": {"node": node}} for node, address in sorted(_addresses(snapshot).items())]


def replicas(snapshot: Snapshot) -> list[Group]:
    """Of services with `x-metrics`, those that run where the agent tells metrics."""
    services: dict[str, ServiceDoc] = {doc.id: doc for doc in snapshot.of("services").values() if doc.spec.metrics is not None}
    addresses = _addresses(snapshot) if services else {}
    rows = (
        _replica(services[row.service_id], row, node, address)
        for node, address in addresses.items()
        for row in snapshot.of("status")[node].replicas
        if row.service_id in services and row.state == RUNNING
    )
    return sorted(rows, key=lambda row: str(row["labels"]["replica"]))


def _replica(doc: ServiceDoc, row: ReplicaStatus, node: str, address: str) -> Group:
    spec = doc.spec
    name = replica_name(spec.name, row.slot, node, everywhere=spec.mode in GLOBAL, single=spec.single)
    labels = {"service": spec.name, "stack": spec.stack, "replica": name, "node": node, "instance": name}
    assert spec.metrics is not None, "only those are asked for"
    where = {
        "__metrics_path__": f"/replicas/{quote(name, safe='')}/metrics",
        "__param_port": str(spec.metrics.port),
        "__param_path": spec.metrics.path,
    }
    return {"targets": [address], "labels": labels | where}


def _addresses(snapshot: Snapshot) -> dict[str, str]:
    health = snapshot.of("health")
    told: dict[str, StatusDoc] = {name: doc for name, doc in snapshot.of("status").items() if name in snapshot.of("nodes")}
    up = {name: doc for name, doc in told.items() if name in health and health[name].state != "down"}
    return {name: doc.info.metrics for name, doc in up.items() if doc.info.metrics}
