"""The obvious scheduler: one replica after the other, every node looked at each time. The oracle of the property tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from model.constraints import matches, platform_matches, value_of
from scheduler import ClusterView, Group, Load, NodeFacts
from scheduler.ports import clash
from scheduler.types import NODE_REPLICAS_MAX

SHARE = 1_000_000


class Greedy:
    def __init__(self, cluster: ClusterView) -> None:
        self.nodes = list(cluster.nodes)
        self.loads = {node.name: cluster.loads.get(node.name, Load()) for node in self.nodes}
        self.ports = {node.name: list(cluster.ports.get(node.name, ())) for node in self.nodes}

    def place(self, groups: Sequence[Group]) -> list[Counter[str]]:
        """Replicas per node for each group."""
        return [self._group(group) for group in groups]

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
            have[best.name] += 1
            placed[best.name] += 1
        return placed

    def _fits(self, node: NodeFacts, group: Group, have: Counter[str]) -> bool:
        load, want, total = self.loads[node.name], group.reserve, node.total
        return (
            node.state == "ready"
            and node.availability == "active"
            and group.node in ("", node.name)
            and all(matches(c, node) for c in group.constraints)
            and platform_matches(group.platform, node)
            and (not want.cpus or load.cpus + want.cpus <= total.cpus)
            and (not want.memory or load.memory + want.memory <= total.memory)
            and (not want.pids or not total.pids or load.pids + want.pids <= total.pids)
            and load.replicas < NODE_REPLICAS_MAX
            and (not group.max_per_node or have[node.name] < group.max_per_node)
            and not any(clash(want_port, other) for want_port in group.ports for other in self.ports[node.name])
        )

    def _order(self, node: NodeFacts, group: Group, have: Counter[str]) -> tuple[object, ...]:
        load, total = self.loads[node.name], node.total
        cpus = (total.cpus - load.cpus) * SHARE // total.cpus if total.cpus else 0
        memory = (total.memory - load.memory) * SHARE // total.memory if total.memory else 0
        share = min(cpus, memory)
        if group.strategy == "pack":
            return (share, -load.replicas, node.name)
        branches = []
        for depth in range(len(group.spread)):
            path = [value_of(key, node) for key in group.spread[: depth + 1]]
            below = (n.name for n in self.nodes if [value_of(key, n) for key in group.spread[: depth + 1]] == path)
            branches.append(sum(have[name] for name in below))
        return (*branches, have[node.name], load.replicas, -share, node.name)
