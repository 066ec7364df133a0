"""What agents do with containers: what is assigned is started, one life of a slot at a time, and what is healthy is left alone.

Rules: an agent that is cut off goes on with what it was last told; so what it does is judged by the newest documents only when
nothing has been wrong with it for a while. `stopped` without a reason is a violation however long that is: no fault of the
control plane may end a healthy container.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from sim.checks.facts import Row, Running
from sim.checks.ground import Checker, Ground

OBEYS_WITHIN_S: Final = 15.0
"""So long after an assignment went its container may still be started: the agent has not heard of it yet."""
STORM_STARTS: Final = 10
STORM_S: Final = 30.0


class Containers(Checker):
    """Each start and end."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._starts: dict[Row, deque[float]] = {}

    def started(self, now: Running) -> None:
        row = self.facts.row(now.node, now.box)
        self._was_asked_for(now, row)
        self._alone(now, row)
        self._storm(now, row)

    def _was_asked_for(self, now: Running, row: Row) -> None:
        if self.facts.assigned(now.node, now.box) or now.node not in self.facts.docs["nodes"]:
            return  # a node that was removed while it was away is told so, and is its owner's to stop
        dropped_s = self.facts.dropped.get(row)
        about = f"service/{row.service}"
        if dropped_s is None:
            self.bad(now.since_s, "not assigned", about, f"{row} was started and never assigned")
        elif now.since_s - dropped_s > OBEYS_WITHIN_S and self.ground.calm(now.node, now.since_s, OBEYS_WITHIN_S):
            text = f"{row} was started {now.since_s - dropped_s:.1f} s after its assignment went"
            self.bad(now.since_s, "not assigned", about, text)

    def _alone(self, now: Running, row: Row) -> None:
        for other in self.facts.by_slot[now.box.service_id, now.box.slot].values():
            if other.node != now.node or other.box.id == now.box.id:
                continue
            old = self.facts.row(other.node, other.box)
            if old == row or not self.facts.together(old, row):
                text = f"{row} runs twice on the node: containers {other.box.id[:12]} and {now.box.id[:12]}"
                self.bad(now.since_s, "runs twice", f"service/{row.service}", text)

    def _storm(self, now: Running, row: Row) -> None:
        spec = self.facts.specs.get((row.service_id, row.version))
        if spec is not None and spec.container.restart.delay_s is not None:
            return  # it says itself how often
        starts = self._starts.setdefault(row, deque(maxlen=STORM_STARTS))
        starts.append(now.since_s)
        if len(starts) == STORM_STARTS and now.since_s - starts[0] < STORM_S:
            text = f"{row} was started {STORM_STARTS} times in {now.since_s - starts[0]:.1f} s"
            self.bad(now.since_s, "restart storm", f"service/{row.service}", text)

    def ended(self, was: Running, code: int | None, why: str, at_s: float) -> None:
        if why != "stopped" or not self.facts.assigned(was.node, was.box):
            return
        row = self.facts.row(was.node, was.box)
        documents = [one for one in self.facts.recently("services", row.service, at_s) if one is not None]
        if self.facts.service(row.service_id) is None or any(one.stopped for one in documents):
            return
        node = self.facts.docs["nodes"].get(was.node)
        known = [one for one in self.facts.recently("nodes", was.node, at_s) if one is not None]
        if node is None or any(one.id != node.id for one in known):
            return  # it is leaving the cluster, or has just joined again
        text = f"{row} ran for {at_s - was.since_s:.1f} s, was wanted, and was stopped by its agent"
        self.bad(at_s, "stopped without reason", f"service/{row.service}", text)
