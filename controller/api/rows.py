"""What the API says of services, replicas and nodes, out of one snapshot.

Rules: a row is made of documents only, so that every controller answers alike. A replica that is assigned but was never
reported is `assigned`; one on a node that is down is `lost`; a wanted one without a node is `pending` with its reason.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

from controller.api.context import Api
from controller.loops.events import in_order
from controller.loops.picture import Snapshot
from model import codec, states
from model.documents import Assigned, AssignedService, DecisionDoc, NodeDoc, ReplicaStatus, ServiceDoc, StatusDoc
from model.errors import NotFound

Row = dict[str, Any]
EXPLAIN_EVENTS = 20


def time_text(ms: int) -> str:
    """RFC 3339 UTC, empty for 0."""
    if not ms:
        return ""
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def replica_name(service: str, slot: int, node: str) -> str:
    return f"{service}.{slot}" if slot else f"{service}.{node}"


# ---- replicas


def replicas(
    api: Api, stack: str | None = None, service: str | None = None, node: str | None = None, all_: bool = False
) -> list[Row]:
    """Assigned, waiting and (with `all_`) ended ones that are no longer assigned, sorted by name."""
    snapshot = api.snapshot()
    found = list(_assigned(snapshot, service, node))
    if node is None:
        found.extend(_waiting(snapshot, service))
    if all_:
        found.extend(_leftover(snapshot, service, node))
    if stack:
        found = [row for row in found if row["stack"] == stack]
    return sorted(found, key=lambda row: (row["service"], row["slot"], row["node"], row["created"]))


def _assigned(snapshot: Snapshot, service: str | None, node: str | None) -> Iterator[Row]:
    names = snapshot.of("assignments") if node is None else [node]
    for name in names:
        assignment = snapshot.of("assignments").get(name)
        if assignment is None:
            continue
        reported = _reported(snapshot.of("status").get(name))
        health = snapshot.of("health").get(name)
        down = health is not None and health.state == "down"
        for row in assignment.services:
            if service is None or row.name == service:
                yield from _rows_of(snapshot, name, row, reported, down)


def _reported(status: StatusDoc | None) -> dict[tuple[str, int, int], ReplicaStatus]:
    return {(row.service_id, row.slot, row.created_ms): row for row in status.replicas} if status else {}


def _rows_of(
    snapshot: Snapshot, node: str, row: AssignedService, reported: dict[Any, ReplicaStatus], down: bool
) -> Iterator[Row]:
    document = snapshot.of("services").get(row.name)
    document = document if document is not None and document.id == row.service_id else None
    for replica in row.replicas:
        status = reported.get((row.service_id, replica.slot, replica.created_ms))
        yield _row(node, row, replica, status, document, down)


def _row(
    node: str,
    service: AssignedService,
    replica: Assigned,
    status: ReplicaStatus | None,
    document: ServiceDoc | None,
    down: bool,
) -> Row:
    state = states.LOST if down else status.state if status else states.ASSIGNED
    wanted = document is not None and not document.stopped
    networks = {name: address.partition("/")[0] for name, address in (status.addresses if status else ())}
    spec = document.spec if document else None
    return {
        "name": service.name if spec and spec.single else replica_name(service.name, replica.slot, node),
        "service": service.name,
        "service_id": service.service_id,
        "stack": spec.stack if spec else "",
        "slot": replica.slot,
        "node": node,
        "state": state,
        "desired": states.RUNNING if wanted else states.SHUTDOWN,
        "addresses": list(networks.values()),
        "networks": networks,
        "image": spec.container.image if spec else "",
        "container_id": status.container_id if status else "",
        "restarts": status.restarts if status else 0,
        "exit_code": status.exit_code if status else None,
        "message": f"node {node} is down" if down else status.message if status else "",
        "health": status.health if status else "",
        "since": time_text(status.since_ms if status and status.since_ms else replica.created_ms),
        "version": replica.version,
        "created": time_text(replica.created_ms),
        "created_ms": replica.created_ms,
    }


def _waiting(snapshot: Snapshot, service: str | None) -> Iterator[Row]:
    decisions = snapshot.of("decisions")
    for name in decisions if service is None else [service]:
        decision: DecisionDoc | None = decisions.get(name)
        document: ServiceDoc | None = snapshot.of("services").get(name)
        if decision is None or document is None:
            continue
        for slot, reason in decision.waiting:
            blank = _row("", AssignedService(document.id, name, ()), Assigned(slot, document.version, 0), None, document, False)
            named = name if document.spec.single or not slot else f"{name}.{slot}"
            yield {**blank, "name": named, "state": states.PENDING, "message": reason}


def _leftover(snapshot: Snapshot, service: str | None, node: str | None) -> Iterator[Row]:
    by_id = {document.id: document for document in snapshot.of("services").values()}
    for name, status in snapshot.of("status").items():
        if node is not None and name != node:
            continue
        assignment = snapshot.of("assignments").get(name)
        assigned = {
            (row.service_id, replica.slot, replica.created_ms)
            for row in (assignment.services if assignment else ())
            for replica in row.replicas
        }
        for replica in status.replicas:
            document = by_id.get(replica.service_id)
            named = document.spec.name if document else replica.service_id
            if (replica.service_id, replica.slot, replica.created_ms) in assigned or service not in (None, named):
                continue
            row = AssignedService(replica.service_id, named, ())
            made = _row(name, row, Assigned(replica.slot, replica.version, replica.created_ms), replica, document, False)
            yield {**made, "desired": states.SHUTDOWN}


def replica(api: Api, name: str) -> Row:
    """Raises NotFound."""
    snapshot = api.snapshot()
    for service in _services_of_replica(snapshot, name):
        for row in replicas(api, service=service):
            if row["name"] == name:
                return row
    raise NotFound(f"no replica is called {name}: see `shoal ps`")


def _services_of_replica(snapshot: Snapshot, name: str) -> Iterator[str]:
    """Services whose replica it may be: node names may hold dots, so every cut counts."""
    services = snapshot.of("services")
    if name in services:
        yield name
    at = name.find(".")
    while at >= 0:
        if name[:at] in services:
            yield name[:at]
        at = name.find(".", at + 1)


# ---- services


def services(api: Api, stack: str | None = None) -> list[Row]:
    snapshot = api.snapshot()
    running = _running(snapshot)
    return [
        _service_row(snapshot, document, running)
        for name, document in sorted(snapshot.of("services").items())
        if not stack or document.spec.stack == stack
    ]


def _running(snapshot: Snapshot) -> dict[str, int]:
    """Service id -> replicas that run now on nodes that are not down, and are assigned there."""
    counts: dict[str, int] = {}
    for node, assignment in snapshot.of("assignments").items():
        health = snapshot.of("health").get(node)
        if health is not None and health.state == "down":
            continue
        reported = _reported(snapshot.of("status").get(node))
        for row in assignment.services:
            for replica in row.replicas:
                status = reported.get((row.service_id, replica.slot, replica.created_ms))
                if status is not None and status.state == states.RUNNING:
                    counts[row.service_id] = counts.get(row.service_id, 0) + 1
    return counts


def wanted_of(snapshot: Snapshot, document: ServiceDoc) -> int:
    """How many replicas should run now."""
    if document.stopped:
        return 0
    if document.spec.mode in ("replicated", "replicated-job"):
        return document.scale
    decision: DecisionDoc | None = snapshot.of("decisions").get(document.spec.name)
    assigned = sum(
        len(row.replicas)
        for assignment in snapshot.of("assignments").values()
        for row in assignment.services
        if row.service_id == document.id
    )
    return assigned + (len(decision.waiting) if decision else 0)


def _service_row(snapshot: Snapshot, document: ServiceDoc, running: dict[str, int]) -> Row:
    spec = document.spec
    return {
        "id": document.id,
        "name": spec.name,
        "stack": spec.stack,
        "mode": spec.mode,
        "running": running.get(document.id, 0),
        "wanted": wanted_of(snapshot, document),
        "image": spec.container.image,
        "ports": [codec.to_plain(port) for port in spec.container.ports],
        "version": document.version,
        "single": spec.single,
        "stopped": document.stopped,
        "created": time_text(document.created_ms),
        "updated": time_text(document.updated_ms),
    }


def service(api: Api, document: ServiceDoc) -> Row:
    snapshot = api.snapshot()
    decision: DecisionDoc | None = snapshot.of("decisions").get(document.spec.name)
    return {
        **_service_row(snapshot, document, _running(snapshot)),
        "spec": codec.to_plain(document.spec),
        "scale": document.scale,
        "decision": decision.sentences[-1].sentence if decision and decision.sentences else "",
        "waiting": [
            {"replica": f"{document.spec.name}.{slot}" if slot else document.spec.name, "reason": reason}
            for slot, reason in (decision.waiting if decision else ())
        ],
    }


def events_about(api: Api, *about: str) -> list[Row]:
    chosen = [(seq, event) for seq, event in in_order(api.snapshot().of("events")) if event.about in about]
    return [event_row(seq, event) for seq, event in chosen[-EXPLAIN_EVENTS:]]


def event_row(seq: int, event: Any) -> Row:
    return {
        "seq": seq,
        "at_ms": event.at_ms,
        "kind": event.kind,
        "about": event.about,
        "node": event.node,
        "sentence": event.sentence,
    }


# ---- nodes


def nodes(api: Api) -> list[Row]:
    snapshot = api.snapshot()
    return [_node_row(snapshot, document) for _, document in sorted(snapshot.of("nodes").items())]


def _node_row(snapshot: Snapshot, document: NodeDoc) -> Row:
    health = snapshot.of("health").get(document.name)
    status: StatusDoc = snapshot.of("status").get(document.name) or StatusDoc(document.name)
    assignment = snapshot.of("assignments").get(document.name)
    cpus, memory, count = _reserved(snapshot, assignment)
    return {
        "name": document.name,
        "state": health.state if health else "unreachable",
        "availability": document.availability,
        "role": document.role,
        "cpus": status.info.cpus,
        "memory_bytes": status.info.memory_bytes,
        "labels": dict(document.labels),
        "replicas": count,
        "address": status.info.underlay or status.info.address.rpartition(":")[0],
        "version": status.info.agent_version,
        "message": health.message if health else "has not been ready yet",
        "reserved": {"cpus": cpus, "memory_bytes": memory},
        "since": time_text(health.since_ms if health else document.joined_ms),
    }


def _reserved(snapshot: Snapshot, assignment: Any) -> tuple[float, int, int]:
    cpus, memory, count = 0.0, 0, 0
    for row in assignment.services if assignment else ():
        document = snapshot.of("services").get(row.name)
        count += len(row.replicas)
        if document is not None and document.id == row.service_id:
            cpus += document.spec.reservations.cpus * len(row.replicas)
            memory += document.spec.reservations.memory_bytes * len(row.replicas)
    return round(cpus, 6), memory, count


def node(api: Api, name: str) -> Row:
    snapshot = api.snapshot()
    document = snapshot.of("nodes").get(name)
    if document is None:
        raise NotFound(f"no node is called {name}: see `shoal node ls`")
    status = snapshot.of("status").get(name)
    assignment = snapshot.of("assignments").get(name)
    return {
        **_node_row(snapshot, document),
        "id": document.id,
        "info": codec.to_plain(status.info) if status else {},
        "assignments": codec.to_plain(assignment) if assignment else {},
    }


# ---- why


def explain_service(api: Api, name: str) -> Row:
    """Of a service or of one of its replicas. Raises NotFound."""
    snapshot = api.snapshot()
    service_name = name if name in snapshot.of("services") else replica(api, name)["service"]
    document: ServiceDoc = snapshot.of("services")[service_name]
    decision: DecisionDoc | None = snapshot.of("decisions").get(service_name)
    rows = [row for row in replicas(api, service=service_name) if name in (service_name, row["name"])]
    lines = [_line(row) for row in rows]
    running = sum(row["state"] == states.RUNNING for row in rows)
    newest = decision.sentences[-1].sentence if decision and decision.sentences else "nothing was decided about it yet"
    about = f"{service_name}: {running} running, {wanted_of(snapshot, document)} wanted"
    sentence = lines[0] if name != service_name and lines else f"{about}; {newest}"
    return {"name": name, "sentence": sentence, "lines": lines, "events": events_about(api, f"service/{service_name}")}


def _line(row: Row) -> str:
    where = f" on {row['node']}" if row["node"] else ""
    return f"{row['name']}: {row['state']}{where}" + (f" ({row['message']})" if row["message"] else "")


def explain_node(api: Api, name: str) -> Row:
    row = node(api, name)
    sentence = f"{name} is {row['state']}, {row['availability']}" + (f": {row['message']}" if row["message"] else "")
    lines = [
        f"{row['replicas']} replicas assigned",
        f"reserved {row['reserved']['cpus']:g} of {row['cpus']:g} cpus",
        f"reserved {row['reserved']['memory_bytes']} of {row['memory_bytes']} bytes of memory",
    ]
    return {"name": name, "sentence": sentence, "lines": lines, "events": events_about(api, f"node/{name}")}
