"""CPU time of one decision beside many services: `python -m bench.decide [NODES SERVICES REPLICAS]`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace

from bench import figures
from controller.decide.index import Index
from controller.decide.services import decide_services
from controller.decide.types import Plan, Settings, View
from model.documents import AssignmentDoc, NetworkDoc, NodeDoc, NodeHealthDoc, NodeInfo, ReplicaStatus, ServiceDoc, StatusDoc
from model.spec import Attachment, ContainerSpec, NetworkSpec, Resources, ServiceSpec

SETTINGS = Settings(network_prefix=22, slice_prefix=28)
INFO = NodeInfo(cpus=64.0, memory_bytes=256 << 30)


def picture(nodes: int, services: int, replicas: int) -> View:
    names = [f"n{number:04}" for number in range(nodes)]
    docs = {}
    for number in range(services):
        spec = ServiceSpec(
            f"s{number:05}", ContainerSpec("image", networks=(Attachment(f"net{number // 5}"),)), replicas=replicas,
            reservations=Resources(0.01, 1 << 20),
        )  # fmt: skip
        docs[spec.name] = ServiceDoc(f"id{number}", spec, replicas)
    networks = [f"net{number}" for number in range(services // 5 + 1)]
    return View(
        services=docs,
        nodes={name: NodeDoc(name, name) for name in names},
        health={name: NodeHealthDoc(name, "ready") for name in names},
        statuses={name: StatusDoc(name, INFO) for name in names},
        networks={name: NetworkDoc(name, NetworkSpec(name)) for name in networks},
        index=Index(),
    )


def written(view: View, plan: Plan) -> View:
    """The view after the plan, with every replica running."""
    assignments = {**view.assignments, **{doc.node: doc for doc in plan.assignments}}
    return replace(
        view, assignments=assignments, netplans={**view.netplans, **{doc.name: doc for doc in plan.netplans}},
        svcplans={**view.svcplans, **{doc.name: doc for doc in plan.svcplans}},
        decisions={**view.decisions, **{doc.name: doc for doc in plan.decisions}},
        statuses={name: _running(name, assignments.get(name, AssignmentDoc(name))) for name in view.statuses},
    )  # fmt: skip


def _running(node: str, doc: AssignmentDoc) -> StatusDoc:
    rows = (
        ReplicaStatus(entry.service_id, replica.slot, replica.version, replica.created_ms, "running")
        for entry in doc.services
        for replica in entry.replicas
    )
    return StatusDoc(node, INFO, replicas=tuple(rows))


def timed(what: str, work: Callable[[], Plan]) -> Plan:
    began = time.process_time()
    plan = work()
    took_ms = (time.process_time() - began) * 1000
    figures.add(what, took_ms, "ms")
    print(f"{what}: {took_ms:,.1f} ms")
    return plan


def main() -> None:
    nodes, services, replicas = map(int, sys.argv[1:] or ("1000", "10000", "10"))
    print(f"{services:,} services of {replicas:,} replicas on {nodes:,} nodes, CPU time")
    view = picture(nodes, services, replicas)
    view = written(view, timed("all placed at once", lambda: decide_services(view, None, SETTINGS, 1_000)))
    timed("all services, nothing to do", lambda: decide_services(view, None, SETTINGS, 2_000))
    name = "s00007"
    timed("1 service, nothing to do", lambda: decide_services(view, [name], SETTINGS, 2_000))
    doc = replace(view.services[name], scale=replicas + 5)
    view = replace(view, services={**view.services, name: doc})
    timed("1 service, 5 more replicas", lambda: decide_services(view, [name], SETTINGS, 2_000))
    timed("the same without the index", lambda: decide_services(replace(view, index=None), [name], SETTINGS, 2_000))


if __name__ == "__main__":
    figures.run(main)
