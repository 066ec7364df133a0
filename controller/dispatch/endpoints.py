"""Who can be reached on each network: kept up by changes, sent to nodes as differences. Nothing of it is stored.

Rules: what an endpoint is stands in endpoint_rows.py. A change of one service costs the replicas of that service, whatever else
there is, and what a session does not know yet is found without looking at what it knows. Every change takes a new number; a
session remembers the newest number it was told of each network. Numbers grow from reign to reign too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final

from controller.dispatch.endpoint_rows import Facts, Row, Running, facts_of, is_down, is_told, reachable
from controller.loops.picture import Change, Snapshot
from model.documents import AssignmentDoc, ReplicaStatus, ServiceDoc
from protos import node_pb2 as pb

TOMBSTONES_MAX: Final = 1_000
"""Removed services remembered for differences; whoever knows an older state gets the whole network again."""
EPOCH_SHIFT: Final = 32
"""Each reign has so many bits of numbers of its own, above all those of earlier reigns."""


@dataclass(slots=True)
class _Service:
    number: int
    facts: Facts
    message: pb.ServiceEndpoints


@dataclass(slots=True)
class _Network:
    """`services` and `removed` are in the order of their numbers."""

    services: dict[str, _Service] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    forgotten: int = 0
    """The newest number among the removals that are no longer remembered."""
    prefix6: str = ""
    prefix_number: int = 0


class EndpointBook:
    """`reload` once, then `take` every change; `message` tells a session what it does not know yet."""

    def __init__(self) -> None:
        self._networks: dict[str, _Network] = {}
        self._on_node: dict[str, dict[str, tuple[ReplicaStatus, ...]]] = {}
        self._underlays: dict[str, str] = {}
        self._nodes: dict[str, dict[str, None]] = {}
        """Service id -> nodes where it can be reached."""
        self._names: dict[str, str] = {}
        """Service id -> name."""
        self._on: dict[str, tuple[str, ...]] = {}
        """Service id -> networks."""
        self._told: set[str] = set()
        """Ids of services that anybody is told of: nothing is kept of the others, however many replicas they have."""
        self._lost: dict[str, int] = {}
        self.number = 0
        """That of the newest change."""
        self._first = 0

    def reload(self, snapshot: Snapshot, epoch: int = 0) -> None:
        """Begin anew from everything. Numbers go on, so that no session takes old news for new."""
        self.number = self._first = max(self.number, epoch << EPOCH_SHIFT)
        for table in (self._networks, self._on_node, self._underlays, self._nodes, self._names, self._on, self._lost):
            table.clear()
        self._told.clear()
        self._learn(snapshot, snapshot.of("services"))
        for name in snapshot.of("netplans"):
            self._set_prefix(snapshot, name)
        for node in snapshot.of("status"):
            self._set_node(snapshot, node)
        for document in snapshot.of("services").values():
            self._set_service(snapshot, document)

    def take(self, changes: Iterable[Change], snapshot: Snapshot) -> list[str]:
        """The networks whose endpoints differ now."""
        changes = list(changes)
        ids: dict[str, None] = {}
        names: dict[str, ServiceDoc | None] = {}
        touched: list[str] = []
        for node in self._learn(snapshot, [change.name for change in changes if change.kind in ("services", "svcplans")]):
            ids.update(self._set_node(snapshot, node))
        for change in changes:
            if change.kind in ("status", "assignments", "health"):
                if change.kind != "health" or is_down(change.old) != is_down(change.new):
                    ids.update(self._set_node(snapshot, change.name))
            elif change.kind == "services":
                names[change.name] = change.old
            elif change.kind == "svcplans":
                planned = snapshot.of("services").get(change.name)
                ids.update({planned.id: None} if planned is not None else {})
            elif change.kind == "netplans":
                touched += self._set_prefix(snapshot, change.name)
            elif change.kind == "networks" and change.name in self._networks:
                ids.update(dict.fromkeys(self._networks[change.name].services))
        for name, old in names.items():
            document: ServiceDoc | None = snapshot.of("services").get(name)
            if old is not None and (document is None or document.id != old.id):
                self._names.pop(old.id, None)
                self._told.discard(old.id)
                touched += self._drop(old.id, ())
            if document is not None:
                touched += self._set_service(snapshot, document)
        for service_id in ids:
            document = snapshot.of("services").get(self._names.get(service_id, ""))
            if document is not None and document.id == service_id:
                touched += self._set_service(snapshot, document)
        return list(dict.fromkeys(touched))

    def lost(self) -> dict[str, int]:
        """Nodes that lost endpoints since this was asked last, and the number at which they did."""
        found, self._lost = self._lost, {}
        return found

    def has_news(self, network: str, told: int | None) -> bool:
        """Whether `message` has something to say."""
        return told is None or self.newest(network) > told

    def newest(self, network: str) -> int:
        """The number of the newest change of the network; that of the reign's beginning when there was none."""
        entry = self._networks.get(network)
        if entry is None:
            return self._first
        last = next(reversed(entry.services.values()), None)
        removed = next(reversed(entry.removed.values()), 0)
        return max(last.number if last else 0, removed, entry.forgotten, entry.prefix_number, self._first)

    def message(self, network: str, told: int | None) -> tuple[pb.Endpoints | None, int]:
        """What is new since number `told` (None: nothing was told), and the number that is told then. The message carries the
        number of the network's newest change."""
        if not self.has_news(network, told):
            return None, self.number
        entry = self._networks.get(network, _Network())
        whole = told is None or told < entry.forgotten
        since = -1 if told is None or whole else told
        fresh = takewhile(lambda row: row.number > since, reversed(entry.services.values()))
        gone = takewhile(lambda row: row[1] > since, reversed(entry.removed.items()))
        message = pb.Endpoints(
            network=network, whole=whole, number=self.newest(network), prefix6=entry.prefix6,
            services=[row.message for row in fresh][::-1], removed=() if whole else [service for service, _ in gone][::-1],
        )  # fmt: skip
        return message, self.number

    # ---- keeping up

    def _learn(self, snapshot: Snapshot, names: Iterable[str]) -> list[str]:
        """Which services of these names are told; the nodes that have replicas of one that was not."""
        fresh: set[str] = set()
        for name in names:
            document: ServiceDoc | None = snapshot.of("services").get(name)
            if document is None:
                continue
            if not is_told(snapshot, document):
                self._told.discard(document.id)
            elif document.id not in self._told:
                fresh.add(document.id)
        if not fresh:
            return []
        self._told |= fresh
        rows: Mapping[str, AssignmentDoc] = snapshot.of("assignments")
        return [node for node, row in rows.items() if any(entry.service_id in fresh for entry in row.services)]

    def _set_prefix(self, snapshot: Snapshot, network: str) -> list[str]:
        plan = snapshot.of("netplans").get(network)
        entry = self._networks.setdefault(network, _Network())
        if plan is None and entry.removed and not entry.services:  # of a network that is gone little may stay
            entry.forgotten = max(entry.forgotten, next(reversed(entry.removed.values())))
            entry.removed.clear()
        prefix6 = plan.prefix6 if plan is not None else ""
        if entry.prefix6 == prefix6:
            return []
        self.number += 1
        entry.prefix6, entry.prefix_number = prefix6, self.number
        return [network]

    def _set_node(self, snapshot: Snapshot, node: str) -> dict[str, None]:
        """Take the node's rows anew; the ids of the services for which they differ."""
        before = self._on_node.get(node, {})
        after = reachable(snapshot, node, self._told)
        status = snapshot.of("status").get(node)
        underlay = status.info.underlay if status is not None else ""
        moved, self._underlays[node] = self._underlays.get(node, "") != underlay, underlay
        changed = {sid: None for sid in (*before, *after) if moved or before.get(sid) != after.get(sid)}
        self._on_node[node] = after
        for sid in changed:
            if sid in after:
                self._nodes.setdefault(sid, {})[node] = None
            elif sid in self._nodes:
                self._nodes[sid].pop(node, None)
        return changed

    def _set_service(self, snapshot: Snapshot, document: ServiceDoc) -> list[str]:
        """Take the service's rows anew; the networks on which they differ."""
        self._names[document.id] = document.spec.name
        found: dict[str, Facts] = {}
        if is_told(snapshot, document):
            running = tuple(
                Running(node, self._underlays[node], self._on_node[node][document.id])
                for node in sorted(self._nodes.get(document.id, {}))
            )
            found = facts_of(snapshot, document, running)
        touched = [network for network, facts in found.items() if self._put(network, document.id, facts)]
        touched += self._drop(document.id, found)
        self._on[document.id] = tuple(found)
        return touched

    def _put(self, network: str, service_id: str, facts: Facts) -> bool:
        entry = self._networks.setdefault(network, _Network())
        old = entry.services.get(service_id)
        if old is not None and old.facts == facts:
            return False
        self.number += 1
        entry.services.pop(service_id, None)
        entry.services[service_id] = _Service(self.number, facts, facts.message(service_id))
        entry.removed.pop(service_id, None)
        if old is not None:
            self._lose(old.facts.rows, facts.rows)
        return True

    def _drop(self, service_id: str, keep: Collection[str]) -> list[str]:
        """Take the service from every network but those in `keep`."""
        touched = []
        for name in self._on.pop(service_id, ()):
            entry = self._networks[name]
            if name in keep or (old := entry.services.pop(service_id, None)) is None:
                continue
            self.number += 1
            entry.removed[service_id] = self.number
            self._lose(old.facts.rows, ())
            touched.append(name)
            while len(entry.removed) > TOMBSTONES_MAX:
                entry.forgotten = max(entry.forgotten, entry.removed.pop(next(iter(entry.removed))))
        return touched

    def _lose(self, before: Iterable[Row], after: Iterable[Row]) -> None:
        left = {(row.replica, row.address, row.node) for row in after}
        for row in before:
            if (row.replica, row.address, row.node) not in left:
                self._lost[row.node] = self.number
