"""An update whose new version does not stay up goes no further, unless its file says so.

Rules: looked at where a replica that runs is replaced by one of the newest version. A new replica fails when it has ended by
itself and has not run for its service's `monitor` since. What happened within the last seconds the leader may not know yet.
"""

from __future__ import annotations

from typing import Final

from model.documents import ServiceDoc
from sim.checks.facts import Row, Running, Step
from sim.checks.ground import Checker, Ground

KNOWN_S: Final = 3.0
CALM_S: Final = 10.0


class Updating(Checker):
    """Each step of an update."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._failed: dict[Row, float] = {}
        """When it first ended badly by itself."""

    def ended(self, was: Running, code: int | None, why: str, at_s: float) -> None:
        if why == "crashed" and code != 0:
            self._failed.setdefault(self.facts.row(was.node, was.box), at_s)

    def wrote(self, step: Step) -> None:
        fresh = {(row.service_id, row.slot): row for row in step.added}
        for old in step.removed:
            new = fresh.get((old.service_id, old.slot))
            if new is not None and new.version > old.version and self._runs(old, step.at_s):
                self._judge(step.at_s, old, new)

    def _runs(self, old: Row, at_s: float) -> bool:
        now = self.facts.runs(old)
        return now is not None and at_s - now.since_s > KNOWN_S

    def _judge(self, at_s: float, old: Row, new: Row) -> None:
        documents = self.facts.recently("services", old.service, at_s)
        if any(document is None or document.version != new.version for document in documents):
            return
        document = documents[0]
        config = document.spec.update
        if config.failure_action == "continue" or config.max_failure_ratio > 0 or document.spec.mode.endswith("job"):
            return
        failing = [row for row in self._newest(document) if row != new and self._fails(row, config.monitor_s, at_s)]
        if failing:
            text = f"{old} was replaced although {failing[0]} does not stay up"
            self.bad(at_s, "update not paused", f"service/{old.service}", text)

    def _newest(self, document: ServiceDoc) -> list[Row]:
        slots = self.facts.holders.get(document.id, {})
        return [row for rows in slots.values() for row in rows if row.version == document.version]

    def _fails(self, row: Row, monitor_s: float, at_s: float) -> bool:
        first_s = self._failed.get(row)
        if first_s is None or at_s - first_s < KNOWN_S or not self.ground.calm(row.node, at_s, CALM_S):
            return False
        now = self.facts.runs(row)
        return now is None or at_s - now.since_s < monitor_s - 1.0
