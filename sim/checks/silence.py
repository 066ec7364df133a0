"""Nothing moves without need: a node goes down only when it was silent for its timeout, and never most of them at once.

Rules: a new leader has heard of nobody: silence counts from its reign at the earliest. A node with which nothing has been
wrong is heard. Judged with margins, since what the leader heard is not in the documents.
"""

from __future__ import annotations

from typing import Final

from sim.checks.facts import Change, Step
from sim.checks.ground import Checker, Ground

NODE_TIMEOUT_S: Final = 10.0
"""The shortest that a scenario has."""
TAKING_S: Final = 4.0
"""So long after a reign has begun for the leader its key may stand in the store."""
CALM_S: Final = 15.0
RECENT_S: Final = 3 * NODE_TIMEOUT_S
"""A lost node counts among the silent ones for so long."""
MARGIN: Final = 1
"""A node more or less may just have been heard."""


class Silence(Checker):
    """Each node that goes down."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._reign_s = -1e9

    def wrote(self, step: Step) -> None:
        lost = []
        for change in step.changes:
            if change.kind == "leader" and change.new is not None and (change.old is None or _epochs(change)):
                self._reign_s = step.at_s
            elif change.kind == "health" and change.new is not None and change.new.state == "down":
                lost += [change.name] if change.old is None or change.old.state != "down" else []
        for node in lost:
            self._judge(step.at_s, node)
        if lost:
            self._count(step.at_s, lost)

    def _judge(self, at_s: float, node: str) -> None:
        if at_s - self._reign_s < NODE_TIMEOUT_S - TAKING_S:
            text = f"it went down {at_s - self._reign_s:.1f} s after the reign had begun: who leads cannot have missed it yet"
            self.bad(at_s, "down without reason", f"node/{node}", text)
        elif self.ground.calm(node, at_s, CALM_S) and None not in self.facts.recently("nodes", node, at_s):
            text = f"it went down though nothing has been wrong with it for {at_s - self.ground.calm_since_s(node):.1f} s"
            self.bad(at_s, "down without reason", f"node/{node}", text)

    def _count(self, at_s: float, lost: list[str]) -> None:
        counted = silent = 0
        for name, health in self.facts.docs["health"].items():
            long_lost = health.state == "down" and at_s - self.facts.changed_s("health", name) > RECENT_S
            if name in self.facts.docs["nodes"] and not long_lost:
                counted += 1
                silent += health.state != "ready"
        if 2 * (silent - MARGIN) > counted:
            text = f"{' and '.join(lost)} went down while {silent} of {counted} nodes were silent"
            self.bad(at_s, "mass move", f"node/{lost[0]}", text)


def _epochs(change: Change) -> bool:
    differ: bool = change.old.epoch != change.new.epoch
    return differ
