"""How many replicas of each service are in which state, kept from one look at the cluster to the next.

Rules: only nodes whose documents changed are counted again, so a look costs what changed and not what exists; what a node was
counted for is taken out before its new count goes in. One thread at a time, holding `turn`. `ready`: runs, healthy if it has a
health check, on a node that is not down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from threading import Lock
from typing import Final

from controller.loops.picture import Snapshot
from model.documents import AssignedService, AssignmentDoc, ReplicaStatus, StatusDoc
from model.states import ASSIGNED, COMPLETE, LOST, RUNNING

HEALTHY: Final = ("", "healthy")
READY: Final = "ready"

Count = dict[str | int, int]
"""Replicas of one service, here or everywhere: by state, by version (without lost ones), and READY those that serve."""
Pairs = tuple[tuple[str | int, int], ...]
Node = tuple[StatusDoc | None, AssignmentDoc | None, bool]
"""What a node's count is made of; the last: it is down."""
_Told = Mapping[tuple[int, int], ReplicaStatus]
_NOTHING: Final[_Told] = {}


class Tally:
    """`look(snapshot)`, then `services`: by id the count over all nodes."""

    def __init__(self) -> None:
        self.turn = Lock()
        self.services: dict[str, Count] = {}
        self._nodes: dict[str, tuple[Node, Mapping[str, Pairs]]] = {}

    def look(self, snapshot: Snapshot) -> None:
        assignments, statuses, health = snapshot.of("assignments"), snapshot.of("status"), snapshot.of("health")
        for node in self._nodes.keys() - assignments.keys():
            self._put(node, (None, None, False))
            del self._nodes[node]
        for node, assignment in assignments.items():
            state = health.get(node)
            self._put(node, (statuses.get(node), assignment, state is not None and state.state == "down"))

    def states(self) -> Count:
        """Over all services."""
        total: Count = {}
        for count in self.services.values():
            _add(total, ((key, number) for key, number in count.items() if isinstance(key, str) and key != READY))
        return total

    def _put(self, node: str, facts: Node) -> None:
        before, counts = self._nodes.get(node, ((None, None, False), {}))
        if facts[0] is before[0] and facts[1] is before[1] and facts[2] == before[2]:
            return
        found = count_node(*facts)
        for service in counts.keys() | found.keys():
            old, new = counts.get(service, ()), found.get(service, ())
            if old != new:
                total = self.services.setdefault(service, {})
                _add(total, ((key, -number) for key, number in old))
                _add(total, new)
                if not total:
                    del self.services[service]
        self._nodes[node] = (facts, found)


def _add(total: Count, pairs: Iterable[tuple[str | int, int]]) -> None:
    for key, number in pairs:
        left = total.get(key, 0) + number
        if left:
            total[key] = left
        else:
            del total[key]


def count_node(status: StatusDoc | None, assignment: AssignmentDoc | None, down: bool) -> dict[str, Pairs]:
    """By service id: what is assigned to the node, joined with what its agent last said."""
    told: dict[str, dict[tuple[int, int], ReplicaStatus]] = {}
    for row in status.replicas if status is not None else ():
        rows = told.get(row.service_id)
        if rows is None:
            rows = told[row.service_id] = {}
        rows[row.slot, row.created_ms] = row
    services = assignment.services if assignment is not None else ()
    return {entry.service_id: _count(entry, told.get(entry.service_id, _NOTHING), down) for entry in services}


def _count(entry: AssignedService, told: _Told, down: bool) -> Pairs:
    found: Count = {}
    for run in entry.runs:
        version, created_ms = run[0], run[1]
        for slot in run[2:]:
            row = told.get((slot, created_ms))
            state = row.state if row is not None else ASSIGNED
            if down and state != COMPLETE:
                found[LOST] = found.get(LOST, 0) + 1
                continue
            found[state] = found.get(state, 0) + 1
            found[version] = found.get(version, 0) + 1
            if row is not None and state == RUNNING and row.health in HEALTHY:
                found[READY] = found.get(READY, 0) + 1
    return _same(tuple(found.items()))


@lru_cache(maxsize=4096)
def _same(pairs: Pairs) -> Pairs:
    """One object for all that are equal: there are as many as services on nodes, and few are different."""
    return pairs
