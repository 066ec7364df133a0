"""Callers of services that sleep: each sends its first packet again every second until a replica serves.

Rules: a caller is on a node, as a client of a published port is. Who calls when the faults have ended waits however long it
takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from agent.plan.balance import HELD, port_frontend
from model.documents import ServiceDoc
from sim.load import Load
from sim.node import SimNode

AGAIN_S: Final = 1.0


class Callers:
    """`run` for the whole run; `waiting`: (service, node) -> since when. After `insist` there is one of each that sleeps."""

    def __init__(self, load: Load, services: Mapping[str, ServiceDoc], nodes: Mapping[str, SimNode]) -> None:
        self.waiting: dict[tuple[str, str], float] = {}
        self._load = load
        self._services = services
        self._nodes = nodes
        self._insist: dict[str, None] = {}

    def insist(self) -> None:
        self._insist = {name: None for name in sorted(self._services) if _sleeps(self._services[name])}

    async def run(self) -> None:
        while True:
            await asyncio.sleep(AGAIN_S)
            now_s = self._load.now_s()
            before, self.waiting = self.waiting, {}
            for name, document in sorted(self._services.items()):
                if document.spec.autoscale is not None and document.spec.autoscale.may_sleep and not document.stopped:
                    for node in self._held(name, document, now_s):
                        self.waiting[name, node] = before.get((name, node), now_s)
            self._insist = {name: None for name in self._insist if name in self._services and _sleeps(self._services[name])}

    def _held(self, name: str, document: ServiceDoc, now_s: float) -> list[str]:
        """Nodes whose callers have called now and are held."""
        found = []
        for port in document.spec.container.ports[:1]:
            frontend = port_frontend(port.protocol, port.published, port.host_ip, 4)
            for node, machine in ((name, node.machine) for name, node in self._nodes.items() if node.alive):
                calls = name in self._insist or (self._load.rate(name, now_s) and self._load.share(name, node))
                if calls and machine.balance is not None and machine.tables.slots.get(frontend) == HELD:
                    machine.balance.call("", port.protocol, "192.0.2.1", port.published, f"192.0.2.2:{name}")
                    found.append(node)
        return found


def _sleeps(document: ServiceDoc) -> bool:
    policy = document.spec.autoscale
    return policy is not None and policy.may_sleep and not document.stopped and document.scale == 0
