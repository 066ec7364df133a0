"""Nobody is stopped while others still send him connections.

Rules: looked at where a container ends because its agent ended it, on nodes with which nothing has been wrong for a while: who
is cut off is not waited for. In a large cluster on a few of them in turn.
"""

from __future__ import annotations

from typing import Final

from agent.plan.network import LOCAL_BRIDGE
from sim.checks.facts import Running
from sim.checks.ground import Checker, Ground

NODES_MAX: Final = 40
CALM_S: Final = 20.0


class Draining(Checker):
    """Each container that an agent has stopped."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._turn = 0

    def ended(self, was: Running, code: int | None, why: str, at_s: float) -> None:
        if why != "stopped" or not was.box.addresses or not self.ground.calm(was.node, at_s, CALM_S):
            return
        row = self.facts.row(was.node, was.box)
        spec = self.facts.specs.get((row.service_id, row.version))
        if spec is None or not spec.container.stop_grace_period_s:
            return
        if not self.ground.belongs(was.node, at_s):
            return  # a node that leaves waits for nobody
        names = sorted(self.ground.believes)
        for name in names if len(names) <= NODES_MAX else self._some(names):
            for network, address in was.box.addresses:
                if network == LOCAL_BRIDGE and name != was.node:
                    continue
                sends = row.service_id in self.ground.believes[name](network, address.partition("/")[0])
                if sends and self.ground.calm(name, at_s, CALM_S) and self.ground.belongs(name, at_s):
                    text = f"{row} was stopped while {name} still sends connections to {address} on {network}"
                    self.bad(at_s, "stopped while sent to", f"service/{row.service}", text)

    def _some(self, names: list[str]) -> list[str]:
        self._turn = (self._turn + NODES_MAX) % len(names)
        return (names + names)[self._turn : self._turn + NODES_MAX]
