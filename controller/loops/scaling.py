"""The loop of the autoscaler: every few seconds, and at once when somebody calls a sleeping service.

Rules: only services that scale themselves cost anything, and they are not all looked at in one breath. What is measured is
read before the decision, in the event loop's thread. A new leader begins with all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from controller.decide.autoscaling import decide_scaling, scales_itself
from controller.decide.serving import ServingCounts
from controller.decide.types import Plan, Settings, View
from controller.loops.loop import Loop, Shell
from controller.loops.measuring import Measuring
from controller.loops.picture import Change, Snapshot
from model.documents import ServiceDoc

SERVICES_A_PASS: Final = 100


class ScalingLoop(Loop):
    """`reload` when a reign begins, `take` every change, `wake` when somebody calls; `run` as every loop."""

    def __init__(self, shell: Shell, settings: Settings, measuring: Measuring) -> None:
        super().__init__("scaling", self._decide_scaling, shell)
        self._settings = settings
        self._measuring = measuring
        self._counts = ServingCounts()
        self._names: dict[str, str] = {}
        """Service id -> name, of those that scale themselves."""

    def reload(self, services: Mapping[str, ServiceDoc]) -> None:
        self._names = {doc.id: name for name, doc in services.items() if scales_itself(doc)}
        self._counts = ServingCounts()
        self.queue.add(self._names.values())

    def take(self, changes: list[Change]) -> None:
        """What people change of a service, or say to its autoscaler, is looked at at once."""
        for change in changes:
            if change.kind == "services":
                self._know(change.name, change.old, change.new)
            asked = change.kind == "services" and scales_itself(change.new) and not _only_count(change)
            if asked or change.kind == "scaleorders":
                self.queue.add((change.name,))

    def wake(self, service_id: str) -> None:
        if service_id in self._names:
            self.queue.add((self._names[service_id],))

    def _know(self, name: str, old: ServiceDoc | None, new: ServiceDoc | None) -> None:
        if new is not None and scales_itself(new):
            self._names[new.id] = name
        if old is not None and (new is None or new.id != old.id or not scales_itself(new)):
            self._names.pop(old.id, None)
            self._counts.forget(old.id)

    def _look(self, snapshot: Snapshot, dirty: tuple[str, ...]) -> View:
        services = snapshot.of("services")
        due = (services.get(name) for name in dirty[:SERVICES_A_PASS])
        measured = {doc.spec.name: self._measuring.of(doc) for doc in due if doc is not None}
        return replace(super()._look(snapshot, dirty), measured=measured)

    def _decide_scaling(self, view: View, dirty: tuple[str, ...], now_ms: int) -> Plan:
        plan = decide_scaling(view, dirty[:SERVICES_A_PASS], self._settings, now_ms, self._counts)
        later = tuple((name, now_ms) for name in dirty[SERVICES_A_PASS:])
        return replace(plan, wakes=(*plan.wakes, *later))


def _only_count(change: Change) -> bool:
    """What this very loop writes of a service. What people ask the leader's API for is its process's own writing, too."""
    if not change.own or change.old is None:
        return False
    old: ServiceDoc = change.old
    new: ServiceDoc = change.new
    return replace(old, scale=new.scale, updated_ms=new.updated_ms) == new
