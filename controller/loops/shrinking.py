"""How busy the replicas are of services that are scaled in: who has the fewest open connections goes first.

Rules: nothing is counted of a service that is not being scaled in, and of a very large one only its first replicas: there it
makes no difference.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from controller.decide.index import index_of
from controller.decide.types import View
from controller.loops.picture import Change
from controller.samples.port import Samples
from model.documents import ServiceDoc

REPLICAS_MAX: Final = 2_000
STEPS: Final = 10
"""So old a count may be, in steps of the samples."""

Open = dict[int, int]


class Shrinking:
    """`take` every change; `busy` is asked by the thread that makes views."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._names: dict[str, None] = {}

    def take(self, changes: list[Change]) -> None:
        for change in changes:
            if change.kind == "services" and change.old and change.new and change.new.scale < change.old.scale:
                self._names[change.name] = None

    def busy(self, view: View) -> dict[str, Open]:
        """Open connections by service and slot, of those that still have more replicas than they should."""
        found: dict[str, Open] = {}
        for name in tuple(self._names):
            doc = view.services.get(name)
            slots = self._slots(view, doc) if doc is not None else []
            if doc is None or len(slots) <= doc.scale:
                del self._names[name]
            else:
                found[name] = self._open(doc, slots)
        return found

    def _slots(self, view: View, doc: ServiceDoc) -> list[int]:
        entries = index_of(view).placed.get(doc.spec.name, {}).values()
        slots = (slot for entry in entries if entry.service_id == doc.id for run in entry.runs for slot in run[2:])
        return sorted(set(islice(slots, doc.scale + REPLICAS_MAX)))

    def _open(self, doc: ServiceDoc, slots: list[int]) -> Open:
        since_ms = self._samples.settled_ms() - STEPS * self._samples.step_ms()
        found: Open = {}
        for slot in slots[:REPLICAS_MAX]:
            rows = self._samples.replica(doc.id, slot, since_ms)["open"]
            newest = next((count for count in reversed(rows) if count is not None), None)
            if newest:
                found[slot] = int(newest)
        return found
