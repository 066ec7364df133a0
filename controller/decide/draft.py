"""Edits of one pass, collected: assignments per node, volume places, and the documents they become.

Rules: a document is rebuilt only when something in it changed; then its generation grows by one. Services keep their order in
a document. What is added is kept as the slots of each node, and becomes runs (version, age, slots) as documents have them: a
replica of a million is a number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Final

from controller.decide.types import View
from model.documents import Assigned, AssignedService, AssignmentDoc, VolumePlaceDoc
from scheduler import Amounts, Load

_EMPTY: Final = AssignmentDoc("")


_Slots = defaultdict[str, list[int]]
"""By node."""


class _Added:
    """What was added of a service, of one version and age. It stays as it came until somebody asks for a node: of most services
    nobody does, and a hundred of them sorted by node at the same time are more than all their documents."""

    __slots__ = ("_came", "_slots", "created_ms", "version")

    def __init__(self, version: int, created_ms: int) -> None:
        self.version, self.created_ms = version, created_ms
        self._came: list[Iterable[tuple[int, str]]] = []
        self._slots: _Slots = defaultdict(list)

    def is_of(self, version: int, created_ms: int) -> bool:
        return self.version == version and self.created_ms == created_ms

    def add(self, pairs: Iterable[tuple[int, str]]) -> None:
        self._came.append(pairs)

    @property
    def slots(self) -> _Slots:
        """To look at and to change."""
        if self._came:
            _sort_in(self._slots, self._came)
            self._came.clear()
        return self._slots

    def once(self) -> _Slots:
        """To look at, for whoever does so once."""
        return self.slots if self._slots else _sort_in(defaultdict(list), self._came)


def _sort_in(slots: _Slots, pairs: Iterable[Iterable[tuple[int, str]]]) -> _Slots:
    for slot, node in chain.from_iterable(pairs):
        slots[node].append(slot)
    return slots


class Draft:
    def __init__(self, view: View) -> None:
        self._view = view
        self._ids: dict[str, str] = {}
        """Service ids of what was added, by name."""
        self._added: dict[str, list[_Added]] = {}
        self._dropped: dict[str, dict[str, set[Assigned]]] = {}
        self.places: dict[str, VolumePlaceDoc] = {}

    def add(self, node: str, service: str, service_id: str, replica: Assigned) -> None:
        slot, version, created_ms = replica
        self.extend(service, service_id, version, created_ms, ((slot, node),))

    def extend(
        self, service: str, service_id: str, version: int, created_ms: int, pairs: Iterable[tuple[int, str]]
    ) -> None:  # fmt: skip
        """Many at once: (slot, node), which stay as they are."""
        self._ids[service] = service_id
        groups = self._added.setdefault(service, [])
        if not groups or not groups[-1].is_of(version, created_ms):
            groups.append(_Added(version, created_ms))
        groups[-1].add(pairs)

    @property
    def frees(self) -> bool:
        """Whether the pass has taken anything away so far."""
        return bool(self._dropped)

    def drop(self, node: str, service: str, replica: Assigned) -> None:
        """Take it away, from the documents or from what this pass has added."""
        slot, version, created_ms = replica
        for group in self._added.get(service, ()):
            if group.is_of(version, created_ms) and slot in group.slots.get(node, ()):
                group.slots[node].remove(slot)
                break
        else:
            self._dropped.setdefault(node, {}).setdefault(service, set()).add(replica)

    def on(self, node: str, entry: AssignedService) -> list[Assigned]:
        """The service's replicas on the node after what was added and dropped; `entry` as the document says."""
        dropped = self._dropped.get(node, {}).get(entry.name, ())
        return [replica for replica in entry.replicas if replica not in dropped] + self._new(node, entry.name)

    def standing(self, service: str, entries: Mapping[str, AssignedService]) -> dict[str, int]:
        """Replicas of the service per node after what was added and dropped; `entries` as the documents say."""
        counts = {node: entry.count for node, entry in entries.items()}
        for node, services in self._dropped.items():
            if service in services:
                counts[node] = counts.get(node, 0) - len(services[service])
        for group in self._added.get(service, ()):
            for node, slots in group.slots.items():
                counts[node] = counts.get(node, 0) + len(slots)
        return {node: count for node, count in counts.items() if count > 0}

    def freed(self, amounts: Callable[[str], Amounts]) -> dict[str, Load]:
        """Per node what the drops so far give back: replicas, cpus, memory, pids."""
        freed: dict[str, Load] = {}
        for node, services in self._dropped.items():
            for service, replicas in services.items():
                count = len(replicas) - sum(len(group.slots.get(node, ())) for group in self._added.get(service, ()))
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
        added = self._by_node()
        touched = sorted(added.keys() | self._dropped.keys())
        docs = (self._rebuilt(node, added.get(node, [])) for node in touched if node in self._view.nodes)
        return tuple(doc for doc in docs if doc is not None)

    def changed_places(self) -> tuple[VolumePlaceDoc, ...]:
        return tuple(self.places[name] for name in sorted(self.places) if self._view.places.get(name) != self.places[name])

    def _by_node(self) -> dict[str, list[AssignedService]]:
        """What was added."""
        found: defaultdict[str, list[AssignedService]] = defaultdict(list)
        for service, groups in self._added.items():
            service_id = self._ids[service]
            if len(groups) > 1:
                for node in dict.fromkeys(chain.from_iterable(group.slots for group in groups)):
                    if replicas := self._new(node, service):
                        found[node].append(AssignedService.of(service_id, service, replicas))
                continue
            version, created_ms = groups[0].version, groups[0].created_ms
            for node, slots in groups[0].once().items():
                if slots:
                    slots.sort()
                    found[node].append(AssignedService(service_id, service, (len(slots), version, created_ms, *slots)))
        return found

    def _new(self, node: str, service: str) -> list[Assigned]:
        """What was added of the service on the node."""
        groups = self._added.get(service, ())
        return [Assigned(slot, group.version, group.created_ms) for group in groups for slot in group.slots.get(node, ())]

    def _rebuilt(self, node: str, added: list[AssignedService]) -> AssignmentDoc | None:
        before, dropped = self._view.assignments.get(node, _EMPTY), self._dropped.get(node, {})
        fresh = {row.name: row for row in added}
        services: list[AssignedService] = []
        for entry in before.services:
            more, gone = fresh.pop(entry.name, None), dropped.get(entry.name)
            if not more and not gone:
                services.append(entry)
                continue
            kept = [replica for replica in entry.replicas if not gone or replica not in gone]
            kept += more.replicas if more else ()
            if kept:
                services.append(AssignedService.of((more or entry).service_id, entry.name, kept))
        after = (*services, *fresh.values())
        return AssignmentDoc(node, before.generation + 1, after) if after != before.services else None
