"""The obvious scheduler: one replica after the other, every node looked at each time. The oracle of the property tests.

For groups that pack it chooses the target of the batch first (scheduler/target.py says which), node by node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from copy import deepcopy

from model.constraints import matches, platform_matches, value_of
from scheduler import ClusterView, Group, Load, NodeFacts
from scheduler.ports import clash
from scheduler.types import NODE_REPLICAS_MAX

SHARE = 1_000_000


class Greedy:
    def __init__(self, cluster: ClusterView) -> None:
        self.nodes = list(cluster.nodes)
        self.loads = {node.name: cluster.loads.get(node.name, Load()) for node in self.nodes}
        self.generic = {
            node.name: {kind: has - cluster.generic.get(node.name, {}).get(kind, 0) for kind, has in node.generic}
            for node in self.nodes
        }
        self.ports = {node.name: list(cluster.ports.get(node.name, ())) for node in self.nodes}

    def place(self, groups: Sequence[Group]) -> list[Counter[str]]:
        """Replicas per node for each group: those that pack by size and on a target; if not all have room, as they come."""
        self.target, self.worth = self._target([group for group in groups if group.strategy == "pack" and group.slots])
        before = deepcopy((self.loads, self.ports, self.generic))
        places = [k for k, group in enumerate(groups) if group.strategy == "pack"]
        largest = iter(sorted(places, key=lambda k: self._size(groups[k]), reverse=True))
        order = [next(largest) if k in places else k for k in range(len(groups))]
        placed = {k: self._group(groups[k]) for k in order}
        if places and any(placed[k].total() < len(group.slots) for k, group in enumerate(groups)):
            self.target = set()
            self.loads, self.ports, self.generic = before
            placed = {k: self._group(group) for k, group in enumerate(groups)}
        return [placed[k] for k in range(len(groups))]

    def _size(self, group: Group) -> int:
        cpus, memory = (sum(node.total[at] for node in self.nodes) for at in (0, 1))
        return max(group.reserve.cpus * memory, group.reserve.memory * cpus)

    def _left(self, node: NodeFacts) -> tuple[int, int]:
        load = self.loads[node.name]
        return (max(node.total.cpus - load.cpus, 0), max(node.total.memory - load.memory, 0))

    def _target(self, groups: Sequence[Group]) -> tuple[set[str], tuple[int, int]]:
        """The fullest nodes that together have what the groups ask for; and what cpus and memory are worth in it."""
        asking = [group for group in groups if any(group.reserve[:2])]
        target: set[str] = set()
        if len({group.reserve for group in asking}) < 2:
            return target, (0, 0)
        passing = [
            (group, {n.name for n in self.nodes if self._passes(n, group)})
            for group in asking
            if not group.node and not group.generic
        ]
        for _, names in sorted(passing, key=lambda row: len(row[1])):
            nodes = [node for node in self.nodes if node.name in names]
            within = [group for group, some in passing if some <= names]
            for node in sorted(nodes, key=lambda node: (node.name not in target, *self._fullest(node))):
                chosen = [self._left(other) for other in nodes if other.name in target]
                asked = [sum(len(group.slots) * group.reserve[at] for group in within) for at in (0, 1)]
                if any(sum(left[at] for left in chosen) < asked[at] for at in (0, 1)):
                    target.add(node.name)
        cpus, memory = (sum(self._left(node)[at] for node in self.nodes if node.name in target) for at in (0, 1))
        return target, (max(memory, 1) ** 2, max(cpus, 1) ** 2)

    def _passes(self, node: NodeFacts, group: Group) -> bool:
        return (
            node.state == "ready" and node.availability == "active"
            and all(matches(c, node) for c in group.constraints) and platform_matches(group.platform, node)
        )  # fmt: skip

    def _group(self, group: Group) -> Counter[str]:
        have = Counter(dict(group.existing))
        placed: Counter[str] = Counter()
        for _ in group.slots:
            fitting = [node for node in self.nodes if self._fits(node, group, have)]
            if not fitting:
                break
            best = min(fitting, key=lambda node: self._order(node, group, have))
            load = self.loads[best.name]
            want = group.reserve
            self.loads[best.name] = Load(
                load.replicas + 1, load.cpus + want.cpus, load.memory + want.memory, load.pids + want.pids
            )
            self.ports[best.name] += group.ports
            for kind, wanted in group.generic:
                self.generic[best.name][kind] -= wanted
            have[best.name] += 1
            placed[best.name] += 1
        return placed

    def _fits(self, node: NodeFacts, group: Group, have: Counter[str]) -> bool:
        load, want, total = self.loads[node.name], group.reserve, node.total
        return (
            self._passes(node, group)
            and group.node in ("", node.name)
            and (not want.cpus or load.cpus + want.cpus <= total.cpus)
            and (not want.memory or load.memory + want.memory <= total.memory)
            and (not want.pids or not total.pids or load.pids + want.pids <= total.pids)
            and load.replicas < NODE_REPLICAS_MAX
            and (not group.max_per_node or have[node.name] < group.max_per_node)
            and all(self.generic[node.name].get(kind, 0) >= wanted for kind, wanted in group.generic)
            and not any(clash(want_port, other) for want_port in group.ports for other in self.ports[node.name])
        )

    def _order(self, node: NodeFacts, group: Group, have: Counter[str]) -> tuple[object, ...]:
        load, reserve = self.loads[node.name], group.reserve
        if group.strategy == "pack":
            if node.name not in self.target or not any(reserve[:2]):
                return (1, *self._fullest(node))
            left = (node.total.cpus - load.cpus, node.total.memory - load.memory)
            return (0, -sum(left[at] * reserve[at] * self.worth[at] for at in (0, 1)), node.name)
        branches = []
        for depth in range(len(group.spread)):
            path = [value_of(key, node) for key in group.spread[: depth + 1]]
            below = (n.name for n in self.nodes if [value_of(key, n) for key in group.spread[: depth + 1]] == path)
            branches.append(sum(have[name] for name in below))
        return (*branches, have[node.name], load.replicas, -self._share(node), node.name)

    def _share(self, node: NodeFacts) -> int:
        load, total = self.loads[node.name], node.total
        cpus = (total.cpus - load.cpus) * SHARE // total.cpus if total.cpus else 0
        memory = (total.memory - load.memory) * SHARE // total.memory if total.memory else 0
        return min(cpus, memory)

    def _fullest(self, node: NodeFacts) -> tuple[object, ...]:
        return (self._share(node), -self.loads[node.name].replicas, node.name)
