"""Never two leaders that write: what only the leader may write comes from whoever holds the key, and the epoch only grows."""

from __future__ import annotations

from typing import Final

from sim.checks.facts import Change, Step
from sim.checks.ground import Checker

LEADERS: Final = frozenset(
    {"assignments", "netplans", "svcplans", "places", "health", "decisions", "scales", "status", "events"}
)
"""Kinds with the leader as their one writer (`model.documents`)."""


class Leaders(Checker):
    """Follows the leader's key and the cluster's epoch."""

    def wrote(self, step: Step) -> None:
        for change in step.changes:
            if change.kind in ("leader", "cluster"):
                self._grows(step, change)
        joining = "nodes" in step.kinds  # the API writes a node's first status when it joins
        mine = [kind for kind in step.kinds if kind in LEADERS and not (joining and kind == "status")]
        leader = self.facts.docs["leader"].get("")
        if mine and (leader is None or leader.controller != step.place):
            who = f"{leader.controller} leads (epoch {leader.epoch})" if leader else "nobody leads"
            self.bad(step.at_s, "two leaders", f"controller/{step.place}", f"it wrote {', '.join(mine)} while {who}")

    def _grows(self, step: Step, change: Change) -> None:
        cluster = self.facts.docs["cluster"].get("")
        floor = change.old.epoch if change.old is not None else 0
        if change.new is None:
            if change.kind == "cluster":
                self.bad(step.at_s, "epoch", f"controller/{step.place}", "the cluster document was deleted: the epoch is lost")
            return
        if change.kind == "leader" and cluster is not None and change.new.epoch < cluster.epoch:
            floor = max(floor, cluster.epoch)
        if change.new.epoch < floor or (change.kind == "cluster" and change.new.epoch == floor):
            text = f"the {change.kind} document falls from epoch {floor} to {change.new.epoch}"
            self.bad(step.at_s, "epoch", f"controller/{step.place}", text)
