"""No node sends a service's connections to a container of another one, that got the address later.

Rules: looked at where a container starts, on nodes with which nothing has been wrong for a while. In a large cluster on a few
of them in turn: a wrong node more or less says the same. The address on a node's own bridge is another one on every node.
"""

from __future__ import annotations

from typing import Final

from agent.plan.network import LOCAL_BRIDGE
from sim.checks.facts import Running
from sim.checks.ground import Checker, Ground

NODES_MAX: Final = 40
CALM_S: Final = 20.0


class Endpoints(Checker):
    """Each start of a container with addresses."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._turn = 0

    def started(self, now: Running) -> None:
        believes = self.ground.believes
        names = sorted(believes) if len(believes) <= NODES_MAX else self._some(list(believes))
        for network, address in now.box.addresses:
            plain = address.partition("/")[0]
            for node in names if network != LOCAL_BRIDGE else [name for name in names if name == now.node]:
                others = [service for service in believes[node](network, plain) if service != now.box.service_id]
                if others and self._counts(node, now.since_s) and self._counts(now.node, now.since_s):
                    row = self.facts.row(now.node, now.box)
                    wrong = self.facts.names.get(others[0], others[0])
                    text = f"{row} has got {plain} on {network}, where {node} still sends connections to {wrong}"
                    self.bad(now.since_s, "stale endpoint", f"service/{wrong}", text)

    def _counts(self, node: str, at_s: float) -> bool:
        return self.ground.calm(node, at_s, CALM_S) and self.ground.belongs(node, at_s)

    def _some(self, names: list[str]) -> list[str]:
        self._turn = (self._turn + NODES_MAX) % len(names)
        return (names + names)[self._turn : self._turn + NODES_MAX]
