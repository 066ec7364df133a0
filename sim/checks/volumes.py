"""Exactly one complete copy of a volume: a place is kept as long as its node is in the cluster; what was removed is gone.

Rules: only volumes of global services have a copy on more than one node. A volume that a service names may come back at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from model.documents import VolumePlaceDoc
from sim.checks.facts import Step
from sim.checks.ground import Checker
from sim.checks.placing import GLOBAL, volumes_of


class Volumes(Checker):
    """Each written place."""

    def wrote(self, step: Step) -> None:
        for change in step.changes:
            if change.kind != "places":
                continue
            if change.new is None:
                self._dropped(step, change.old)
            else:
                self._kept(step, change.old, change.new)

    def _kept(self, step: Step, old: VolumePlaceDoc | None, new: VolumePlaceDoc) -> None:
        nodes, about = self.facts.docs["nodes"], f"volume/{new.name}"
        lost = [node for node in (old.nodes if old else ()) if node not in new.nodes and node in nodes]
        if lost:
            text = f"it was on {' and '.join(lost)}, still in the cluster, and is now on {' and '.join(new.nodes) or 'none'}"
            self.bad(step.at_s, "volume", about, text)
        if len(new.nodes) > 1 and not self._is_global(new.name):
            self.bad(step.at_s, "volume", about, f"it has copies on {' and '.join(new.nodes)}")

    def _dropped(self, step: Step, old: VolumePlaceDoc) -> None:
        lag = self.facts.recently("volumes", old.name, step.at_s)
        if all(document is not None for document in lag) and any(node in self.facts.docs["nodes"] for node in old.nodes):
            self.bad(step.at_s, "volume", f"volume/{old.name}", "its place was forgotten while the volume exists")

    def volume_removed(self, name: str, copies: Sequence[str], at_s: float) -> None:
        documents = (one for service in self.facts.docs["services"] for one in self.facts.recently("services", service, at_s))
        if copies and not any(name in volumes_of(document.spec) for document in documents if document is not None):
            text = f"it was removed, nobody said why not, and it is still on {' and '.join(copies)}"
            self.bad(at_s, "volume", f"volume/{name}", text)

    def _is_global(self, volume: str) -> bool:
        names = [name for name, document in self.facts.docs["services"].items() if volume in volumes_of(document.spec)]
        return any(self.facts.docs["services"][name].spec.mode in GLOBAL for name in names)
