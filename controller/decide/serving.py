"""How many replicas of a service serve, and how many are on their way. Pure, with a cache.

Rules: one that has failed before is not on its way, it is in trouble. What is wanted and has no node yet is on its way, unless
the scheduler said why it waits. Two holders of a slot count twice, but never more than the service's count in all. A node is
counted anew only when its documents changed, so a pass over a large service costs what moved.
"""

from __future__ import annotations

from typing import NamedTuple

from controller.decide.index import Statuses, index_of
from controller.decide.standing import is_ok
from controller.decide.types import View
from model.documents import AssignedService, ServiceDoc, StatusDoc
from model.states import ASSIGNED, PREPARING, RUNNING, STARTING

_COMING = frozenset({ASSIGNED, PREPARING, STARTING, RUNNING})


class Serving(NamedTuple):
    ready: int
    starting: int


class _Node(NamedTuple):
    """What a node's count was made from, and the count."""

    entry: AssignedService
    status: StatusDoc | None
    state: str
    ready: int
    coming: int


class ServingCounts:
    """For one thread at a time."""

    def __init__(self) -> None:
        self._nodes: dict[str, dict[str, _Node]] = {}
        """By service id."""

    def of(self, view: View, doc: ServiceDoc) -> Serving:
        index, known = index_of(view), self._nodes.get(doc.id, {})
        counted: dict[str, _Node] = {}
        for node, entry in index.placed.get(doc.spec.name, {}).items():
            health, status = view.health.get(node), view.statuses.get(node)
            state = health.state if health is not None else "unreachable"
            if entry.service_id != doc.id or node not in view.nodes:
                continue
            old = known.get(node)
            if old is None or old.entry is not entry or old.status is not status or old.state != state:
                old = _counted(entry, status, state, index.statuses(view, node, doc.id))
            counted[node] = old
        self._nodes[doc.id] = counted
        return self._sum(view, doc, counted)

    def forget(self, service_id: str) -> None:
        self._nodes.pop(service_id, None)

    def _sum(self, view: View, doc: ServiceDoc, counted: dict[str, _Node]) -> Serving:
        ready = coming = held = 0
        for row in counted.values():
            ready += row.ready
            coming += row.coming
            held += row.entry.count if row.state != "down" else 0
        decision = view.decisions.get(doc.spec.name)
        if not (decision and decision.waiting):
            coming += max(0, doc.scale - held)
        ready = min(ready, doc.scale)
        return Serving(ready, min(coming, doc.scale - ready))


def _counted(entry: AssignedService, status: StatusDoc | None, state: str, statuses: Statuses) -> _Node:
    ready = coming = 0
    for replica in entry.replicas if state != "down" else ():
        said = statuses.get((replica.slot, replica.created_ms))
        if is_ok(said, state == "ready"):
            ready += 1
        elif said is None or (said.state in _COMING and not said.restarts):
            coming += 1
    return _Node(entry, status, state, ready, coming)
