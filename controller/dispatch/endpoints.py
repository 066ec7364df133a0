"""Who can be reached on each network: kept up by changes, sent to nodes as differences. Nothing of it is stored.

Rules: an endpoint is a replica that its node's document still names (so that one that is being stopped gets no new caller),
that starts or runs, on a node that is not down. A change of one service costs the replicas of that service, whatever else
there is. Every change takes a new number; a session remembers the newest number it was told of each network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from controller.loops.picture import Change, Snapshot
from model.documents import AssignmentDoc, ReplicaStatus, ServiceDoc, StatusDoc
from model.states import RUNNING, STARTING
from protos import node_pb2 as pb

REACHABLE: Final = frozenset({STARTING, RUNNING})
TOMBSTONES_MAX: Final = 1_000
"""Removed services remembered for differences; whoever knows an older state gets the whole network again."""

Row = tuple[str, str, str, bool, tuple[str, ...]]
"""replica, address, node, ready, further names"""


@dataclass(slots=True)
class _Service:
    number: int
    rows: tuple[Row, ...]
    message: pb.ServiceEndpoints


@dataclass(slots=True)
class _Network:
    services: dict[str, _Service] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    forgotten: int = 0
    """The newest number among the removals that are no longer remembered."""


class EndpointBook:
    """`reload` once, then `take` every change; `message` tells a session what it does not know yet."""

    def __init__(self) -> None:
        self._networks: dict[str, _Network] = {}
        self._on_node: dict[str, dict[str, tuple[ReplicaStatus, ...]]] = {}
        self._nodes: dict[str, dict[str, None]] = {}
        self._names: dict[str, str] = {}
        """Service id -> name."""
        self._number = 0

    def reload(self, snapshot: Snapshot) -> None:
        """Begin anew from everything. Numbers go on, so that no session takes old news for new."""
        self._networks.clear()
        self._on_node.clear()
        self._nodes.clear()
        self._names.clear()
        for node in snapshot.of("status"):
            self._set_node(snapshot, node)
        for document in snapshot.of("services").values():
            self._set_service(document)

    def take(self, changes: Iterable[Change], snapshot: Snapshot) -> list[str]:
        """The networks whose endpoints differ now."""
        ids: dict[str, None] = {}
        names: dict[str, ServiceDoc | None] = {}
        for change in changes:
            if change.kind in ("status", "assignments", "health"):
                if change.kind != "health" or _down(change.old) != _down(change.new):
                    ids.update(self._set_node(snapshot, change.name))
            elif change.kind == "services":
                names[change.name] = change.old
        touched: list[str] = []
        for name, old in names.items():
            document: ServiceDoc | None = snapshot.of("services").get(name)
            if old is not None and (document is None or document.id != old.id):
                self._names.pop(old.id, None)
                touched += self._drop(old.id, ())
            if document is not None:
                touched += self._set_service(document)
        for service_id in ids:
            document = snapshot.of("services").get(self._names.get(service_id, ""))
            if document is not None and document.id == service_id:
                touched += self._set_service(document)
        return list(dict.fromkeys(touched))

    def message(self, network: str, told: int | None) -> tuple[pb.Endpoints | None, int]:
        """What is new since number `told` (None: nothing was told), and the number that is told then."""
        entry = self._networks.get(network, _Network())
        whole = told is None or told < entry.forgotten
        since = -1 if whole or told is None else told
        services = [row.message for row in entry.services.values() if row.number > since]
        removed = [] if whole else [service for service, number in entry.removed.items() if number > since]
        if not (whole or services or removed):
            return None, self._number
        return pb.Endpoints(network=network, whole=whole, services=services, removed=removed), self._number

    # ---- keeping up

    def _set_node(self, snapshot: Snapshot, node: str) -> dict[str, None]:
        """Take the node's rows anew; the ids of the services for which they differ."""
        before = self._on_node.get(node, {})
        after = reachable(snapshot, node)
        changed = {sid: None for sid in (*before, *after) if before.get(sid) != after.get(sid)}
        self._on_node[node] = after
        for sid in changed:
            if sid in after:
                self._nodes.setdefault(sid, {})[node] = None
            elif sid in self._nodes:
                self._nodes[sid].pop(node, None)
        return changed

    def _set_service(self, document: ServiceDoc) -> list[str]:
        """Take the service's rows anew; the networks on which they differ."""
        name = self._names[document.id] = document.spec.name
        touched = []
        attachments = document.spec.container.networks
        for attachment in attachments:
            rows = tuple(self._rows(document, attachment.network))
            entry = self._networks.setdefault(attachment.network, _Network())
            old = entry.services.get(document.id)
            names = service_names(document, attachment.aliases)
            if old is not None and old.rows == rows and tuple(old.message.names) == names:
                continue
            self._number += 1
            message = pb.ServiceEndpoints(service_id=document.id, name=name, names=names, endpoints=map(_endpoint, rows))
            entry.services[document.id] = _Service(self._number, rows, message)
            entry.removed.pop(document.id, None)
            touched.append(attachment.network)
        return touched + self._drop(document.id, [item.network for item in attachments])

    def _rows(self, document: ServiceDoc, network: str) -> Iterator[Row]:
        spec = document.spec
        for node in sorted(self._nodes.get(document.id, {})):
            for status in self._on_node[node].get(document.id, ()):
                for name, address in status.addresses:
                    if name == network:
                        replica = spec.name if spec.single else f"{spec.name}.{status.slot or node}"
                        names = replica_names(document, replica, status)
                        yield replica, address.split("/")[0], node, is_ready(status), names

    def _drop(self, service_id: str, keep: Iterable[str]) -> list[str]:
        """Take the service from every network but those in `keep`."""
        kept, touched = set(keep), []
        for name, entry in self._networks.items():
            if name not in kept and entry.services.pop(service_id, None) is not None:
                self._number += 1
                entry.removed[service_id] = self._number
                touched.append(name)
                while len(entry.removed) > TOMBSTONES_MAX:
                    entry.forgotten = max(entry.forgotten, entry.removed.pop(next(iter(entry.removed))))
        return touched


def reachable(snapshot: Snapshot, node: str) -> dict[str, tuple[ReplicaStatus, ...]]:
    """Replicas of the node that may be called, by service id."""
    status: StatusDoc | None = snapshot.of("status").get(node)
    assignment: AssignmentDoc | None = snapshot.of("assignments").get(node)
    if status is None or assignment is None or _down(snapshot.of("health").get(node)):
        return {}
    wanted = {(row.service_id, item.slot, item.created_ms) for row in assignment.services for item in row.replicas}
    found: dict[str, list[ReplicaStatus]] = {}
    for item in status.replicas:
        if item.state in REACHABLE and item.addresses and (item.service_id, item.slot, item.created_ms) in wanted:
            found.setdefault(item.service_id, []).append(item)
    return {service: tuple(items) for service, items in found.items()}


def is_ready(status: ReplicaStatus) -> bool:
    """It runs, and its health check, if it has one, succeeds."""
    return status.state == RUNNING and status.health in ("", "healthy")


def service_names(document: ServiceDoc, aliases: tuple[str, ...]) -> tuple[str, ...]:
    """`shop_web`, `web`, `web.shop` and the aliases of this network; a single container only has its aliases as a service."""
    spec = document.spec
    short = spec.name.removeprefix(f"{spec.stack}_") if spec.stack else spec.name
    own = (spec.name, short, f"{short}.{spec.stack}") if spec.stack else (spec.name,)
    return tuple(dict.fromkeys((*own, *aliases)))


def replica_names(document: ServiceDoc, replica: str, status: ReplicaStatus) -> tuple[str, ...]:
    """`web.3` beside `shop_web.3`, the short container id, and the host name that was asked for."""
    spec = document.spec
    short = replica.removeprefix(f"{spec.stack}_") if spec.stack else replica
    found = (short, status.container_id[:12], spec.container.hostname)
    return tuple(dict.fromkeys(name for name in found if name and name != replica))


def _down(health: object) -> bool:
    return getattr(health, "state", "") == "down"


def _endpoint(row: Row) -> pb.Endpoint:
    replica, address, node, ready, names = row
    return pb.Endpoint(replica=replica, address=address, node=node, ready=ready, names=names)
