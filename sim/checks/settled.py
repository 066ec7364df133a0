"""Liveness: when the faults have ended, the spec is reached within a bound and nothing is left over.

Rules: looked at as often as the world likes; each call reads everything and says what is still missing. A slot may wait for
ever only when an obvious scheduler finds no node for it either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from model.documents import DecisionDoc, NodeDoc, ReplicaStatus, ServiceDoc, StatusDoc
from model.spec import ServiceSpec
from model.states import COMPLETE
from sim.checks.facts import Box, Facts, Row
from sim.checks.placing import GLOBAL, SHARED, matched, volumes_of

ENDING: Final = ("job", "fail")
"""First words of the commands that end by themselves (sim/containers.py)."""


class Missing(NamedTuple):
    """What is not as it should be. `rule`, `about` and `text` as in a violation."""

    rule: str
    about: str
    text: str


@dataclass(frozen=True, slots=True)
class End:
    """How things are now. `boxes`: per machine what it holds, also of machines that are in no cluster. `statuses`: what the
    nodes reported last. `leases`: how many the store holds. `sends`: per node (network, address, service id) to which it sends
    connections. `kept`: per machine what else its agent keeps, as (what, name). `volumes`: per machine those with a name."""

    facts: Facts
    boxes: Mapping[str, Sequence[Box]]
    statuses: Mapping[str, StatusDoc]
    leases: int = 1
    sends: Mapping[str, Sequence[tuple[str, str, str]]] = field(default_factory=dict)
    kept: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    volumes: Mapping[str, Sequence[str]] = field(default_factory=dict)


def unfinished(end: End) -> list[Missing]:
    """Nothing: the spec is reached and nothing is left over."""
    found = not_up(end.facts)
    running = {node: {_identity(box) for box in boxes if box.running} for node, boxes in end.boxes.items()}
    for name in sorted(end.facts.docs["services"]):
        found += _service(end, end.facts.docs["services"][name], running)
    return [*found, *_left_over(end), *_copies(end)]


def _identity(box: Box) -> tuple[str, int, int, int]:
    return (box.service_id, box.slot, box.created_ms, box.version)


def not_up(facts: Facts) -> list[Missing]:
    """Nodes that are not ready, and the leader that is not there."""
    return [*_nodes(facts)]


def _nodes(facts: Facts) -> Iterator[Missing]:
    docs = facts.docs
    for name in sorted(docs["nodes"]):
        health = docs["health"].get(name)
        if health is None or health.state != "ready":
            state = health.state if health else "unknown"
            yield Missing("not ready", f"node/{name}", f"it is {state} though nothing is wrong with it")
    if not docs["leader"]:
        yield Missing("no leader", "controller/*", "nobody leads")


# ---- services

Runs = Mapping[str, set[tuple[str, int, int, int]]]


def _service(end: End, document: ServiceDoc, running: Runs) -> Iterator[Missing]:
    facts, about = end.facts, f"service/{document.spec.name}"
    rows = [row for holders in facts.holders.get(document.id, {}).values() for row in holders]
    decision = facts.docs["decisions"].get(document.spec.name) or DecisionDoc(document.spec.name)
    if document.stopped:
        return
    paused = any("is paused" in note for note in decision.notes)
    for row in sorted(rows):
        yield from _row(end, document, row, running, paused or _waits_for_room(end, document, row, decision))
    if document.spec.mode in GLOBAL:
        missing = _global_missing(end, document, rows)
    else:
        slots: dict[int, list[Row]] = {}
        for row in rows:
            slots.setdefault(row.slot, []).append(row)
        for slot, holders in sorted(slots.items()):
            if len(holders) > 1:
                where = " and ".join(sorted(row.node for row in holders))
                yield Missing("surplus", about, f"slot {slot} has holders on {where}")
        if len(slots) > document.scale:
            yield Missing("surplus", about, f"{len(slots)} slots are assigned, its scale is {document.scale}")
        missing = document.scale - len(slots)
    if missing > 0:
        node = _room(end, document)
        said = decision.waiting[0][1] if decision.waiting else "nothing is said of why"
        if node or not decision.waiting:
            text = f"{missing} replicas have no node though {node or 'no node'} has room: {said}"
            yield Missing("spec not reached", about, text)


def _row(end: End, document: ServiceDoc, row: Row, running: Runs, paused: bool) -> Iterator[Missing]:
    about = f"service/{row.service}"
    node = end.facts.docs["nodes"].get(row.node)
    stays = document.spec.mode in GLOBAL and (node is None or not _eligible(end, node, document.spec))
    if row.version != document.version and not paused and not stays:
        yield Missing("spec not reached", about, f"{row}: the service is at version {document.version}")
    if (row.service_id, row.slot, row.created_ms, row.version) in running.get(row.node, set()):
        return
    status = _status(end, row)
    if status is not None and (status.state == COMPLETE or _ends_by_itself(end, row)):
        return
    if paused and row.version == document.version:
        return
    said = f"{status.state}: {status.message or 'no message'}" if status else "never reported"
    yield Missing("spec not reached", about, f"{row} does not run ({said})")


def _waits_for_room(end: End, document: ServiceDoc, row: Row, decision: DecisionDoc) -> bool:
    """It is to run until a new one does (`start-first`), or its node takes no new ones (`pause`); it says so, and there
    really is no node for another one."""
    said = any(note.startswith(f"{row.service}.{row.slot} stays on {row.node} ") for note in decision.notes)
    if not said or row.version == document.version or _room(end, document):
        return False
    node = end.facts.docs["nodes"].get(row.node)
    return document.spec.update.order == "start-first" or (node is not None and node.availability == "pause")


def _ends_by_itself(end: End, row: Row) -> bool:
    """Its program ends, whatever the agent does: it need not run at the moment it is looked at."""
    spec = end.facts.specs.get((row.service_id, row.version))
    command = (spec.container.command or ()) if spec else ()
    return bool(command) and command[0] in ENDING


def _status(end: End, row: Row) -> ReplicaStatus | None:
    status = end.statuses.get(row.node)
    for one in status.replicas if status else ():
        if (one.service_id, one.slot, one.created_ms) == (row.service_id, row.slot, row.created_ms):
            return one
    return None


def _global_missing(end: End, document: ServiceDoc, rows: Sequence[Row]) -> int:
    held = {row.node for row in rows}
    return sum(
        name not in held and _eligible(end, node, document.spec) and _has_room(end, node, document)
        for name, node in end.facts.docs["nodes"].items()
    )


# ---- the obvious scheduler

def _eligible(end: End, node: NodeDoc, spec: ServiceSpec) -> bool:
    health = end.facts.docs["health"].get(node.name)
    return node.availability == "active" and health is not None and health.state == "ready" and matched(node, spec)


def _room(end: End, document: ServiceDoc) -> str:
    """A node that could take one more replica of the service; "" when there is none, or when it cannot be told."""
    spec = document.spec
    if any(item.ipv4_address for item in document.attachments):
        return ""
    if any(network not in end.facts.docs["netplans"] for network in _networks(document)):
        return ""
    for name, node in sorted(end.facts.docs["nodes"].items()):
        if _eligible(end, node, spec) and _has_room(end, node, document):
            return name
    return ""


def _networks(document: ServiceDoc) -> list[str]:
    return [item.network for item in document.attachments if item.network not in ("host", "none", "bridge")]


def _has_room(end: End, node: NodeDoc, document: ServiceDoc) -> bool:
    spec, facts = document.spec, end.facts
    rows = [row for services in facts.rows.get(node.name, {}).values() for row in services.values()]
    most = spec.placement.max_replicas_per_node
    if most and spec.mode not in GLOBAL and sum(row.service_id == document.id for row in rows) >= most:
        return False
    for volume in volumes_of(spec):
        place, known = facts.docs["places"].get(volume), facts.docs["volumes"].get(volume)
        if known is not None and dict(known.spec.options).get("type", "") in SHARED:
            continue
        if place is not None and place.nodes and node.name not in place.nodes and spec.mode not in GLOBAL:
            return False
    cpus, memory = facts.capacity.get(node.name, (0.0, 0))
    for row in rows:
        other = facts.service(row.service_id)
        if other is None:
            continue
        cpus -= other.spec.reservations.cpus
        memory -= other.spec.reservations.memory_bytes
        if _ports(other.spec) & _ports(spec):
            return False
    asked = spec.reservations
    return (not asked.cpus or asked.cpus <= cpus + 1e-9) and (not asked.memory_bytes or asked.memory_bytes <= memory)


def _ports(spec: ServiceSpec) -> set[tuple[str, int]]:
    return {(port.protocol, port.published) for port in spec.container.ports if port.published}


# ---- nothing is left over

def _left_over(end: End) -> Iterator[Missing]:
    facts = end.facts
    for node in sorted(end.boxes):
        for box in end.boxes[node]:
            row = facts.row(node, box)
            if not facts.assigned(node, box):
                word = "runs" if box.running else "is kept"
                yield Missing("left over", f"node/{node}", f"container {box.id[:12]} of {row} {word} and is not assigned")
            document = facts.service(box.service_id)
            if box.running and document is not None and document.stopped:
                yield Missing("left over", f"service/{row.service}", f"{row} runs, the service is stopped")
    for node, rows in sorted(end.kept.items()):
        for what, name in rows:
            yield Missing("left over", f"node/{node}", f"{what} {name} is kept, and belongs to no replica")
    for node, services in sorted(facts.rows.items()):
        if node not in facts.docs["nodes"]:
            yield Missing("left over", f"node/{node}", "its assignments are kept, the node was removed")
        for service_id in services:
            if facts.service(service_id) is None:
                name = facts.names.get(service_id, service_id)
                yield Missing("left over", f"service/{name}", f"it was removed and is still assigned to {node}")
    yield from _stale(end)
    yield from _left_documents(end)
    if end.leases > 1:
        yield Missing("left over", "controller/*", f"{end.leases} leases are held in the store")


def _copies(end: End) -> Iterator[Missing]:
    """Volumes with a place that are elsewhere too, and containers that run without theirs."""
    docs = end.facts.docs
    for node, names in sorted(end.volumes.items()):
        for name in names if node in docs["nodes"] else ():
            place = docs["places"].get(name)
            if place is not None and place.nodes and node not in place.nodes:
                text = f"its place is {' and '.join(place.nodes)}, and {node} has a copy of it too"
                yield Missing("volume", f"volume/{name}", text)
    for node, boxes in sorted(end.boxes.items()):
        for box in boxes if node in end.volumes else ():
            spec = end.facts.specs.get((box.service_id, box.version))
            for name in volumes_of(spec) if spec is not None and box.running else ():
                if name not in end.volumes[node]:
                    yield Missing("volume", f"volume/{name}", f"{end.facts.row(node, box)} runs, and it is not there")


def _stale(end: End) -> Iterator[Missing]:
    """Connections that are sent where no container of the service is any more."""
    there = {
        (network, address.partition("/")[0], box.service_id)
        for boxes in end.boxes.values() for box in boxes if box.running for network, address in box.addresses
    }  # fmt: skip
    for node, rows in sorted(end.sends.items()):
        for network, address, service_id in rows:
            if (network, address, service_id) not in there:
                name = end.facts.names.get(service_id, service_id)
                text = f"{node} sends its connections to {address} on {network}, where it is no more"
                yield Missing("stale endpoint", f"service/{name}", text)


def _left_documents(end: End) -> Iterator[Missing]:
    docs = end.facts.docs
    owners = {
        "netplans": "networks", "svcplans": "services", "decisions": "services", "health": "nodes", "scales": "services",
        "scaleorders": "services",
    }  # fmt: skip
    for kind, owner in owners.items():
        for name in sorted(docs[kind]):
            if name not in docs[owner]:
                yield Missing("left over", f"{owner[:-1]}/{name}", f"its document in {kind} is kept, it was removed")
    mounted = {volume for document in docs["services"].values() for volume in volumes_of(document.spec)}
    for name in sorted(docs["places"]):
        if name not in docs["volumes"] and name not in mounted:
            yield Missing("left over", f"volume/{name}", "its place is kept, it was removed")
    for name, plan in sorted(docs["netplans"].items()):
        for node, _ in plan.slices:
            if node not in docs["nodes"]:
                yield Missing("left over", f"network/{name}", f"{node} has a slice of it and was removed")
    for name in sorted(end.statuses):
        if name not in docs["nodes"]:
            yield Missing("left over", f"node/{name}", "its status is kept, the node was removed")
