"""The running account of one placement: what each node still has, and who may be asked, while groups are placed in turn.

Rules: nodes are numbers (their place in the view, which is sorted by name, so the number also breaks ties by name). During a
placement loads only grow, so a node's rank only gets worse: heaps may hold outdated entries, which are corrected when met.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Final

from scheduler.filters import static_passes, usable
from scheduler.ports import PortClaim, first_taken
from scheduler.types import NODE_REPLICAS_MAX, ClusterView, Group

SHARE: Final = 1_000_000
PLENTY: Final = 1 << 60
"""Room without a limit."""

Rank = tuple[int, int, int]
"""(replicas in all, minus the free share, number): the smaller is filled first."""


class Pool:
    def __init__(self, cluster: ClusterView) -> None:
        self.nodes = cluster.nodes
        loads = [cluster.loads.get(node.name) for node in cluster.nodes]
        self.at = {node.name: number for number, node in enumerate(cluster.nodes)}
        self.replicas: list[int] = [load.replicas if load else 0 for load in loads]
        self.cpus: list[int] = [n.total.cpus - (load.cpus if load else 0) for n, load in zip(cluster.nodes, loads, strict=True)]
        self.memory: list[int] = [
            n.total.memory - (load.memory if load else 0) for n, load in zip(cluster.nodes, loads, strict=True)
        ]
        self.pids: list[int] = [
            n.total.pids - (load.pids if load else 0) if n.total.pids else PLENTY
            for n, load in zip(cluster.nodes, loads, strict=True)
        ]
        self.volumes = dict(cluster.volumes)
        self.full: dict[object, str] = {}
        self._ports = cluster.ports
        self._taken: dict[int, dict[tuple[str, int], list[PortClaim]]] = {}
        self._usable: list[int] | None = None
        self._eligible: dict[object, list[int]] = {}
        self._heaps: dict[object, list[Rank]] = {}

    def eligible(self, group: Group) -> list[int]:
        """Nodes that pass every filter that does not depend on loads; computed once for equal demands."""
        if group.node:
            number = self.at.get(group.node)
            return [number] if number is not None and static_passes(self.nodes[number], group) else []
        demand = demand_of(group)
        found = self._eligible.get(demand)
        if found is None:
            if self._usable is None:
                self._usable = [i for i, node in enumerate(self.nodes) if usable(node)]
            found = self._usable
            for _, names in group.shun:
                found = [i for i in found if self.nodes[i].name not in names]
            if group.constraints or group.platform:
                found = [i for i in found if static_passes(self.nodes[i], group)]
            self._eligible[demand] = found
        return found

    def heap(self, group: Group) -> list[Rank]:
        """The eligible nodes as a heap by rank, kept between groups of equal demand; entries may be outdated."""
        demand = demand_of(group)
        heap = self._heaps.get(demand)
        if heap is None:
            heap = self._heaps[demand] = [self.rank(i) for i in self.eligible(group)]
            heapq.heapify(heap)
        return heap

    def share(self, i: int) -> int:
        """The free share of the scarcer of cpus and memory, in millionths."""
        total = self.nodes[i].total
        cpus = self.cpus[i] * SHARE // total.cpus if total.cpus else 0
        memory = self.memory[i] * SHARE // total.memory if total.memory else 0
        return min(cpus, memory)

    def rank(self, i: int) -> Rank:
        return (self.replicas[i], -self.share(i), i)

    def room(self, i: int, group: Group, existing: int) -> int:
        """How many more replicas of the group the node can take."""
        want, room = group.reserve, NODE_REPLICAS_MAX - self.replicas[i]
        if want.cpus:
            room = min(room, self.cpus[i] // want.cpus)
        if want.memory:
            room = min(room, self.memory[i] // want.memory)
        if want.pids:
            room = min(room, self.pids[i] // want.pids)
        if group.max_per_node:
            room = min(room, group.max_per_node - existing)
        if group.ports and room > 0:
            room = 0 if self.taken_port(i, group) else 1
        return max(room, 0)

    def taken_port(self, i: int, group: Group) -> str:
        """A port of the group that somebody has on the node (`8080/tcp`), or ""."""
        if not group.ports:
            return ""
        taken = self._ports_of(i)
        found = (port for port in group.ports if first_taken([port], taken.get((port.protocol, port.number), ())))
        return next((port.text for port in found), "")

    def _ports_of(self, i: int) -> dict[tuple[str, int], list[PortClaim]]:
        """What is taken on the node, by protocol and number."""
        known = self._taken.get(i)
        if known is None:
            known = self._taken[i] = {}
            self._claim(known, self._ports.get(self.nodes[i].name, ()))
        return known

    @staticmethod
    def _claim(taken: dict[tuple[str, int], list[PortClaim]], ports: Iterable[PortClaim]) -> None:
        for port in ports:
            taken.setdefault((port.protocol, port.number), []).append(port)

    def take(self, i: int, group: Group, count: int = 1) -> None:
        """Give `count` replicas of the group to the node."""
        want = group.reserve
        self.replicas[i] += count
        self.cpus[i] -= want.cpus * count
        self.memory[i] -= want.memory * count
        if self.nodes[i].total.pids:
            self.pids[i] -= want.pids * count
        if group.ports and count:
            self._claim(self._ports_of(i), group.ports)


def demand_of(group: Group) -> object:
    """Groups with the same demand may use the same nodes."""
    return (group.constraints, group.platform, group.shun)
