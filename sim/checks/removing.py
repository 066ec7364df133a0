"""A healthy replica is never taken away without a reason: what control-plane faults must not do.

Rules: an assignment may go when the service was removed, changed its version, is scaled in, or is done; when its node left the
cluster, is drained or fits no more; or when another holder of the slot stays, which runs if this one did.
"""

from __future__ import annotations

from functools import partial

from model.documents import ServiceDoc
from sim.checks.facts import Row, Step
from sim.checks.ground import Checker
from sim.checks.placing import GLOBAL, matched


class Removing(Checker):
    """Each removed assignment."""

    def wrote(self, step: Step) -> None:
        if not step.removed:
            return
        touched = dict.fromkeys(row.service_id for row in step.removed)
        before = {service_id: self._slots_before(step, service_id) for service_id in touched}
        for row in step.removed:
            if not step.cut:
                self._judge(step, row, before[row.service_id])

    def _slots_before(self, step: Step, service_id: str) -> int:
        """How many slots there were before the transaction: those that counted, and those it takes away from lost nodes too."""
        holders = self.facts.holders.get(service_id, {})
        counts = partial(self._counts, step)
        slots = {slot for slot, rows in holders.items() if any(counts(row) or self._may_have_ended(row) for row in rows)}
        return len(slots | {row.slot for row in step.removed if row.service_id == service_id})

    def _counts(self, step: Step, row: Row) -> bool:
        """Its node is up, or was when this was decided: another loop of the leader says that it is down, people remove it."""
        if self.facts.up_since_s(row.node) is not None:
            return True
        health = self.facts.recently("health", row.node, step.at_s)
        was_there = any(node is not None for node in self.facts.recently("nodes", row.node, step.at_s))
        return was_there and any(document is not None and document.state != "down" for document in health)

    def _may_have_ended(self, row: Row) -> bool:
        """What has ended for good keeps its slot, also on a node that is down: it is started nowhere else."""
        document = self.facts.service(row.service_id)
        return document is not None and document.spec.container.restart.condition != "any"

    def _judge(self, step: Step, row: Row, slots_before: int) -> None:
        documents = self.facts.recently("services", row.service, step.at_s)
        if documents[0] is None or any(self._says_go(document, row, slots_before) for document in documents if document):
            return
        if self._makes_room(step, row):
            return
        specs = [document.spec for document in documents if document is not None]
        for node in self.facts.recently("nodes", row.node, step.at_s):
            if node is None or node.availability == "drain" or not all(matched(node, spec) for spec in specs):
                return
        self._has_successor(step, row)

    def _says_go(self, document: ServiceDoc, row: Row, slots_before: int) -> bool:
        if document.id != row.service_id or document.version != row.version or document.spec.auto_remove:
            return True
        return document.spec.mode not in GLOBAL and slots_before > document.scale

    def _makes_room(self, step: Step, row: Row) -> bool:
        """Something of higher priority takes its place."""
        mine = self._priority(row)
        return any(other.node == row.node and self._priority(other) > mine for other in step.added)

    def _priority(self, row: Row) -> int:
        document = self.facts.service(row.service_id)
        priority: int = getattr(document.spec, "priority", 0) if document is not None else 0
        return priority

    def _has_successor(self, step: Step, row: Row) -> None:
        holders = self.facts.holders.get(row.service_id, {}).get(row.slot, {})
        others = [other for other in holders if self._counts(step, other) and other != row]
        about = f"service/{row.service}"
        if not others:
            self.bad(step.at_s, "removed without reason", about, f"{row} was taken away: nothing asked for it")
            return
        now = self.facts.runs(row)
        lag_s = self.facts.lag_s(step.at_s)
        if now is None or step.at_s - now.since_s < lag_s or not self.ground.calm(row.node, step.at_s, lag_s):
            return
        for other in others:
            ended_s = self.facts.ended_s.get((other.node, other.service_id, other.slot), -1e9)
            runs = self.facts.runs(other) is not None or step.at_s - ended_s < lag_s
            if runs or not self.ground.calm(other.node, step.at_s, lag_s):
                return
        names = ", ".join(str(other) for other in others)
        self.bad(step.at_s, "removed without reason", about, f"{row} ran and was trimmed, but not one of {names} runs")
