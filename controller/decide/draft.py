"""Edits of one pass, collected: assignments per node, volume places, and the documents they become.

Rules: a document is rebuilt only when something in it changed; then its generation grows by one. Services keep their order in
a document, replicas stand by slot and age.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from controller.decide.types import View
from model.documents import Assigned, AssignedService, AssignmentDoc, VolumePlaceDoc
from scheduler import Amounts, Load

_EMPTY: Final = AssignmentDoc("")


class Draft:
    def __init__(self, view: View) -> None:
        self._view = view
        self._added: dict[str, dict[str, tuple[str, list[Assigned]]]] = {}
        self._dropped: dict[str, dict[str, set[Assigned]]] = {}
        self.places: dict[str, VolumePlaceDoc] = {}

    def add(self, node: str, service: str, service_id: str, replica: Assigned) -> None:
        self._added.setdefault(node, {}).setdefault(service, (service_id, []))[1].append(replica)

    @property
    def frees(self) -> bool:
        """Whether the pass has taken anything away so far."""
        return bool(self._dropped)

    def drop(self, node: str, service: str, replica: Assigned) -> None:
        """Take it away, from the documents or from what this pass has added."""
        _, added = self._added.get(node, {}).get(service, ("", []))
        if replica in added:
            added.remove(replica)
        else:
            self._dropped.setdefault(node, {}).setdefault(service, set()).add(replica)

    def on(self, node: str, entry: AssignedService) -> list[Assigned]:
        """The service's replicas on the node after what was added and dropped; `entry` as the document says."""
        dropped = self._dropped.get(node, {}).get(entry.name, ())
        _, added = self._added.get(node, {}).get(entry.name, ("", []))
        return [replica for replica in entry.replicas if replica not in dropped] + added

    def standing(self, service: str, entries: Mapping[str, AssignedService]) -> dict[str, int]:
        """Replicas of the service per node after what was added and dropped; `entries` as the documents say."""
        counts = {node: len(entry.replicas) for node, entry in entries.items()}
        for node, services in self._dropped.items():
            if service in services:
                counts[node] = counts.get(node, 0) - len(services[service])
        for node, added in self._added.items():
            if service in added:
                counts[node] = counts.get(node, 0) + len(added[service][1])
        return {node: count for node, count in counts.items() if count > 0}

    def freed(self, amounts: Callable[[str], Amounts]) -> dict[str, Load]:
        """Per node what the drops so far give back: replicas, cpus, memory, pids."""
        freed: dict[str, Load] = {}
        for node, services in self._dropped.items():
            for service, replicas in services.items():
                added = self._added.get(node, {}).get(service, ("", []))[1]
                count = len(replicas) - len(added)
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
            new_id, new = added.pop(entry.name, (entry.service_id, []))
            gone = dropped.get(entry.name)
            if not new and not gone:
                services.append(entry)
                continue
            kept = [replica for replica in entry.replicas if not gone or replica not in gone]
            if kept or new:
                services.append(AssignedService(new_id, entry.name, _ordered(kept + new)))
        services += [AssignedService(new_id, name, _ordered(new)) for name, (new_id, new) in added.items() if new]
        after = tuple(services)
        return AssignmentDoc(node, before.generation + 1, after) if after != before.services else None


def _ordered(replicas: list[Assigned]) -> tuple[Assigned, ...]:
    return tuple(sorted(replicas, key=lambda replica: (replica.slot, replica.created_ms)))
