"""A job that has ended well is done: the same replica is never started again, whoever restarts.

Rules: counted are ends that the agent must have seen and written down: nothing was wrong with the node at that time, and its
disk has not been full since (an agent that is killed then begins with what it had written before). Who stops a service and
starts it again wants its jobs once more: those that ended before he started it, also after he had stopped it, and those whose
container had begun before and ended later.
"""

from __future__ import annotations

from typing import Final

from sim.checks.facts import Change, Row, Running, Step
from sim.checks.ground import Checker, Ground

CALM_S: Final = 5.0
SEEN_S: Final = 2.0


class Jobs(Checker):
    """Each end and start of a job's container."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._done: dict[Row, float] = {}
        self._wanted_s: dict[str, float] = {}
        """Service id -> when somebody last started it again that was stopped."""

    def wrote(self, step: Step) -> None:
        again = [change.new.id for change in step.changes if _started_again(change)]
        if again:
            self._wanted_s.update(dict.fromkeys(again, step.at_s))
            self._done = {row: done_s for row, done_s in self._done.items() if row.service_id not in again}

    def ended(self, was: Running, code: int | None, why: str, at_s: float) -> None:
        row = self.facts.row(was.node, was.box)
        well = code == 0 and why == "crashed" and was.since_s > self._wanted_s.get(row.service_id, -1.0)
        if well and self._is_job(row) and self.ground.calm(was.node, at_s, CALM_S):
            self._done.setdefault(row, at_s)

    def started(self, now: Running) -> None:
        row = self.facts.row(now.node, now.box)
        done_s = self._done.get(row)
        if done_s is not None and now.since_s - done_s > SEEN_S and self.ground.full_disk_s.get(now.node, -1.0) < done_s:
            text = f"{row} was started again {now.since_s - done_s:.1f} s after it had ended with code 0"
            self.bad(now.since_s, "job run twice", f"service/{row.service}", text)

    def _is_job(self, row: Row) -> bool:
        spec = self.facts.specs.get((row.service_id, row.version))
        return spec is not None and spec.mode.endswith("job")


def _started_again(change: Change) -> bool:
    return change.kind == "services" and bool(change.old and change.new) and change.old.stopped and not change.new.stopped
