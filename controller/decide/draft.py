"""Edits of one pass, collected: assignments per node, volume places, and the documents they become.

Rules: a document is rebuilt only when something in it changed; then its generation grows by one. Services keep their order in
a document. What is added is kept as runs (version, age, slots), as documents have them: a replica of a million is a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from controller.decide.types import View
from model.documents import Assigned, AssignedService, AssignmentDoc, VolumePlaceDoc
from scheduler import Amounts, Load

_EMPTY: Final = AssignmentDoc("")
_Runs = list[list[int]]
"""As AssignedService has them, in the order in which they came."""


class Draft:
    def __init__(self, view: View) -> None:
        self._view = view
        self._ids: dict[str, str] = {}
        """Service ids of what was added, by name."""
        self._added: dict[str, dict[str, _Runs]] = {}
        self._dropped: dict[str, dict[str, set[Assigned]]] = {}
        self.places: dict[str, VolumePlaceDoc] = {}

    def add(self, node: str, service: str, service_id: str, replica: Assigned) -> None:
        slot, version, created_ms = replica
        self.extend(service, service_id, version, created_ms, ((slot, node),))

    def extend(
        self, service: str, service_id: str, version: int, created_ms: int, pairs: Iterable[tuple[int, str]]
    ) -> None:  # fmt: skip
        """Many at once: (slot, node)."""
        added, head = self._added, [version, created_ms]
        self._ids[service] = service_id
        for slot, node in pairs:
            services = added.get(node)
            if services is None:
                services = added[node] = {}
            runs = services.get(service)
            if runs is None:
                services[service] = [[version, created_ms, slot]]
            elif runs[-1][:2] == head:
                runs[-1].append(slot)
            else:
                runs.append([version, created_ms, slot])

    @property
    def frees(self) -> bool:
        """Whether the pass has taken anything away so far."""
        return bool(self._dropped)

    def drop(self, node: str, service: str, replica: Assigned) -> None:
        """Take it away, from the documents or from what this pass has added."""
        slot, version, created_ms = replica
        for run in self._added.get(node, {}).get(service, ()):
            if run[:2] == [version, created_ms] and slot in run[2:]:
                del run[run.index(slot, 2)]
                break
        else:
            self._dropped.setdefault(node, {}).setdefault(service, set()).add(replica)

    def on(self, node: str, entry: AssignedService) -> list[Assigned]:
        """The service's replicas on the node after what was added and dropped; `entry` as the document says."""
        dropped = self._dropped.get(node, {}).get(entry.name, ())
        runs = self._added.get(node, {}).get(entry.name, [])
        return [replica for replica in entry.replicas if replica not in dropped] + _replicas(runs)

    def standing(self, service: str, entries: Mapping[str, AssignedService]) -> dict[str, int]:
        """Replicas of the service per node after what was added and dropped; `entries` as the documents say."""
        counts = {node: entry.count for node, entry in entries.items()}
        for node, services in self._dropped.items():
            if service in services:
                counts[node] = counts.get(node, 0) - len(services[service])
        for node, added in self._added.items():
            if service in added:
                counts[node] = counts.get(node, 0) + _count(added[service])
        return {node: count for node, count in counts.items() if count > 0}

    def freed(self, amounts: Callable[[str], Amounts]) -> dict[str, Load]:
        """Per node what the drops so far give back: replicas, cpus, memory, pids."""
        freed: dict[str, Load] = {}
        for node, services in self._dropped.items():
            for service, replicas in services.items():
                count = len(replicas) - _count(self._added.get(node, {}).get(service, []))
                cpus, memory, pids = amounts(service)
                old = freed.get(node, Load())
                freed[node] = Load(
                    old.replicas + count, old.cpus + count * cpus, old.memory + count * memory, old.pids + count * pids
                )
        return freed

    def bind(self, volume: str, nodes: tuple[str, ...]) -> None:
        self.places[volume] = VolumePlaceDoc(volume, nodes)

    def nodes_of(self, volume: str) -> tuple[str, ...]:
        """Nodes that hold the volume, without those that were removed."""
        place = self.places.get(volume) or self._view.places.get(volume)
        return tuple(node for node in place.nodes if node in self._view.nodes) if place else ()

    def assignments(self) -> tuple[AssignmentDoc, ...]:
        touched = sorted(self._added.keys() | self._dropped.keys())
        docs = (self._rebuilt(node) for node in touched if node in self._view.nodes)
        return tuple(doc for doc in docs if doc is not None)

    def changed_places(self) -> tuple[VolumePlaceDoc, ...]:
        return tuple(self.places[name] for name in sorted(self.places) if self._view.places.get(name) != self.places[name])

    def _rebuilt(self, node: str) -> AssignmentDoc | None:
        before = self._view.assignments.get(node, _EMPTY)
        added, dropped = dict(self._added.get(node, {})), self._dropped.get(node, {})
        services: list[AssignedService] = []
        for entry in before.services:
            runs, gone = added.pop(entry.name, []), dropped.get(entry.name)
            if not runs and not gone:
                services.append(entry)
                continue
            kept = [replica for replica in entry.replicas if not gone or replica not in gone] + _replicas(runs)
            if kept:
                service_id = self._ids[entry.name] if runs else entry.service_id
                services.append(AssignedService.of(service_id, entry.name, kept))
        for name, runs in added.items():
            if found := _ordered(runs):
                services.append(AssignedService(self._ids[name], name, found))
        after = tuple(services)
        return AssignmentDoc(node, before.generation + 1, after) if after != before.services else None


def _ordered(runs: _Runs) -> tuple[tuple[int, ...], ...]:
    """As a document has them; empty when there is nothing in them any more."""
    if len(runs) == 1:
        version, created_ms, *slots = runs[0]
        slots.sort()
        return ((version, created_ms, *slots),) if slots else ()
    return AssignedService.of("", "", _replicas(runs)).runs


def _replicas(runs: _Runs) -> list[Assigned]:
    return [Assigned(slot, run[0], run[1]) for run in runs for slot in run[2:]]


def _count(runs: _Runs) -> int:
    return sum(map(len, runs)) - 2 * len(runs)
