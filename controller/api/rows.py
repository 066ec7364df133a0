"""What the API says of services, replicas and nodes, as JSON rows out of one snapshot.

Rules: a row is made of documents only, so that every controller answers alike; what they mean is decided in controller/decide.
Addresses come without their prefix length; ports of mode ingress with the number that the service got.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any, Final

from controller.api.context import Api
from controller.api.port_rows import effective_ports, short_ports, vips
from controller.decide.autoscaling import known_of, order_of
from controller.decide.explain import Explanation, explain_replica
from controller.decide.explain import explain_node as _explain_node
from controller.decide.explain import explain_service as _explain_service
from controller.decide.machines.explain import for_service
from controller.decide.pinning import with_digest
from controller.decide.replicas import ReplicaRow, counts, replica_rows
from controller.decide.scaled import policy_lines
from controller.decide.wording import replica_name
from controller.loops.events import in_order
from controller.loops.picture import Snapshot
from model import codec
from model.documents import DecisionDoc, Event, NodeDoc, ServiceDoc, StatusDoc
from model.errors import NotFound
from model.stamps import utc_text
from model.states import RUNNING

Row = dict[str, Any]
EXPLAIN_EVENTS: Final = 20


def time_text(ms: int) -> str:
    """RFC 3339 UTC, empty for 0."""
    if not ms:
        return ""
    return utc_text(dt.datetime.fromtimestamp(ms / 1000, dt.UTC), "milliseconds")


# ---- replicas


def replicas(api: Api, stack: str = "", service: str = "", node: str = "", ended: bool = False) -> list[Row]:
    """`ended`: also what is no longer assigned and still reported, of removed services too."""
    found = replica_rows(api.view(), stack, service, node, ended)
    if ended:
        found += api.gone.rows(api.snapshot(), stack, service, node)
    return [_replica(api.snapshot(), row) for row in found]


def _replica(snapshot: Snapshot, row: ReplicaRow) -> Row:
    document: ServiceDoc | None = snapshot.of("services").get(row.service)
    serves = document if row.state == RUNNING and document is not None and document.id == row.service_id else None
    host_ports = row.ports if row.state == RUNNING else ()
    networks = {name: address.partition("/")[0] for name, address in row.addresses}
    return {
        "name": row.name,
        "service": row.service,
        "service_id": row.service_id,
        "stack": row.stack,
        "slot": row.slot,
        "node": row.node,
        "state": row.state,
        "desired": row.desired,
        "addresses": list(networks.values()),
        "networks": networks,
        "ports": short_ports(snapshot, serves, host_ports),
        "host_ports": [list(pair) for pair in host_ports],
        "image": row.image,
        "container_id": row.container_id,
        "restarts": row.restarts,
        "exit_code": row.exit_code,
        "message": row.message,
        "health": row.health,
        "since": time_text(row.since_ms),
        "version": row.version,
        "created": time_text(row.created_ms),
        "created_ms": row.created_ms,
    }


def replica(api: Api, name: str) -> Row:
    """The replica of that name; of several (a node came back, an ended one) the one that is wanted. Raises NotFound."""
    found = [row for service in _services_of(api.snapshot(), name) for row in replicas(api, service=service, ended=True)]
    named = [row for row in found if row["name"] == name]
    if not named:
        raise NotFound(f"no replica is called {name}: see `shoal ps`")
    return min(named, key=lambda row: (row["desired"] != "running", row["state"] != "running", -row["created_ms"]))


def _services_of(snapshot: Snapshot, name: str) -> list[str]:
    """Services whose replica it may be: names of nodes and services may hold dots, so every cut counts."""
    cuts = [name, *(name[:at] for at in range(len(name)) if name[at] == ".")]
    return [cut for cut in cuts if cut in snapshot.of("services")]


# ---- services


def services(api: Api, stack: str = "") -> list[Row]:
    return [
        _service(api, document)
        for _, document in sorted(api.snapshot().of("services").items())
        if not stack or document.spec.stack == stack
    ]


def _service(api: Api, document: ServiceDoc) -> Row:
    spec, count = document.spec, counts(api.view(), document)
    return {
        "id": document.id,
        "name": spec.name,
        "stack": spec.stack,
        "mode": spec.mode,
        "running": count.running,
        "wanted": count.wanted,
        "image": spec.container.image,
        "ports": effective_ports(api.snapshot(), document),
        "vips": vips(api.snapshot(), document),
        "version": document.version,
        "single": spec.single,
        "stopped": document.stopped,
        "created": time_text(document.created_ms),
        "updated": time_text(document.updated_ms),
    }


def service(api: Api, document: ServiceDoc) -> Row:
    """Everything about one service."""
    spec = document.spec
    decision: DecisionDoc | None = api.snapshot().of("decisions").get(spec.name)
    return {
        **_service(api, document),
        "image": with_digest(spec),
        "spec": codec.to_plain(spec),
        "scale": document.scale,
        "autoscaling": _autoscaling(api, document),
        "decision": decision.sentences[-1].sentence if decision and decision.sentences else "",
        "waiting": [
            {"replica": replica_name(spec.name, slot, single=spec.single or not slot), "reason": reason}
            for slot, reason in (decision.waiting if decision else ())
        ],
        "notes": list(decision.notes) if decision else [],
    }


def _autoscaling(api: Api, document: ServiceDoc) -> list[str]:
    """Its policy in words; empty when it has none."""
    policy, view = document.spec.autoscale, api.view()
    return [] if policy is None else policy_lines(policy, known_of(view, document), order_of(view, document), api.now_ms())


# ---- nodes


def nodes(api: Api) -> list[Row]:
    return [_node(api.snapshot(), document) for _, document in sorted(api.snapshot().of("nodes").items())]


def _node(snapshot: Snapshot, document: NodeDoc) -> Row:
    health = snapshot.of("health").get(document.name)
    status: StatusDoc = snapshot.of("status").get(document.name) or StatusDoc(document.name)
    cpus, memory_bytes, count = _given_away(snapshot, document.name)
    return {
        "name": document.name,
        "state": health.state if health else "unreachable",
        "availability": document.availability,
        "role": document.role,
        "cpus": status.info.cpus,
        "memory_bytes": status.info.memory_bytes,
        "labels": dict(document.labels),
        "generic": dict(document.generic),
        "replicas": count,
        "address": status.info.underlay or status.info.address.rpartition(":")[0],
        "version": status.info.agent_version,
        "message": health.message if health else "has not been ready yet",
        "reserved": {"cpus": cpus, "memory_bytes": memory_bytes},
        "since": time_text(health.since_ms if health else document.joined_ms),
    }


def _given_away(snapshot: Snapshot, node: str) -> tuple[float, int, int]:
    """(cpus, memory in bytes, replicas) of what is assigned."""
    assignment = snapshot.of("assignments").get(node)
    cpus, memory_bytes, count = 0.0, 0, 0
    for row in assignment.services if assignment else ():
        document = snapshot.of("services").get(row.name)
        count += row.count
        if document is not None and document.id == row.service_id:
            cpus += document.spec.reservations.cpus * row.count
            memory_bytes += document.spec.reservations.memory_bytes * row.count
    return round(cpus, 6), memory_bytes, count


def node(api: Api, name: str) -> Row:
    """Everything about one node. Raises NotFound."""
    snapshot = api.snapshot()
    document = snapshot.of("nodes").get(name)
    if document is None:
        raise NotFound(f"no node is called {name}: see `shoal node ls`")
    status, assignment = snapshot.of("status").get(name), snapshot.of("assignments").get(name)
    return {
        **_node(snapshot, document),
        "id": document.id,
        "info": codec.to_plain(status.info) if status else {},
        "assignments": codec.to_plain(assignment) if assignment else {},
    }


# ---- why


def explain_service(api: Api, name: str) -> Row:
    """Of a service, or of one of its replicas. Raises NotFound."""
    view = api.view()
    if name in view.services:
        found = _explain_service(view, name, api.settings, api.now_ms())
        machines = for_service(view, api.settings, name, api.now_ms())
        return _explained(api, replace(found, lines=(*found.lines, *machines)), f"service/{name}")
    found = explain_replica(view, name, api.settings, api.now_ms())
    return _explained(api, found, *(f"service/{service}" for service in _services_of(api.snapshot(), name)))


def explain_node(api: Api, name: str) -> Row:
    return _explained(api, _explain_node(api.view(), name), f"node/{name}")


def _explained(api: Api, found: Explanation, *about: str) -> Row:
    events = [(seq, event) for seq, event in in_order(api.snapshot().of("events")) if event.about in about]
    return {
        "name": found.name,
        "sentence": found.sentence,
        "lines": list(found.lines),
        "events": [event_row(seq, event) for seq, event in events[-EXPLAIN_EVENTS:]],
    }


def event_row(seq: int, event: Event) -> Row:
    return {
        "seq": seq,
        "at_ms": event.at_ms,
        "kind": event.kind,
        "about": event.about,
        "node": event.node,
        "sentence": event.sentence,
    }
