"""The running account of placement: nodes in classes of equal ones, so that a step costs the classes it touches, not the nodes.

Rules: nodes are numbers (their place in the view, which is sorted by name, so the number also breaks ties by name). A group
never looks at shelves (shelves.py) too small for it. The account may be kept: `update` tells it what changed, `begin` and
`restore` stand around a pass.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Final

from scheduler.classes import Classes
from scheduler.filters import BY_NAME, static_passes
from scheduler.generic import Stock
from scheduler.ports import Holders, PortClaim
from scheduler.shelves import Alike, State
from scheduler.types import NODE_REPLICAS_MAX, ClusterView, Group, Load, NodeFacts

PLENTY: Final = 1 << 60
"""Room without a limit."""
_NONE: Final = Load()
_NOBODY: Final[Mapping[str, Mapping[str, int]]] = {}
_ANSWERS_MAX: Final = 1_000

Part = tuple[Alike, list[int] | None, int]
"""Some nodes of a class (None: all), and how many replicas each of them gets."""


class Pool(Classes):
    def __init__(self, cluster: ClusterView, *, kept: bool = False) -> None:
        super().__init__(kept=kept)
        self.nodes: list[NodeFacts] = list(cluster.nodes)
        self.names = [node.name for node in self.nodes]
        self.at = {node.name: number for number, node in enumerate(self.nodes)}
        self._kind_at: dict[object, int] = {}
        self._eligible: dict[object, tuple[int, set[int]]] = {}
        self._named: dict[object, list[int]] = {}
        self._kind_of = [self._kind(node) for node in self.nodes]
        self.targets: dict[int, int] = {}
        """Kinds that are set apart, each with the kind its nodes are of otherwise."""
        self._target_of: dict[int, int] = {}
        self._arrange(self._state(i, cluster.loads.get(name, _NONE)) for i, name in enumerate(self.names))
        self.begin(cluster.volumes, cluster.ports, cluster.generic)

    # -- a kept account ------------------------------------------------------------------------------------------

    def begin(
        self, volumes: Mapping[str, tuple[str, ...]], ports: Mapping[str, Collection[PortClaim]],
        generic: Mapping[str, Mapping[str, int]] = _NOBODY,
    ) -> None:  # fmt: skip
        """What holds for one pass (ClusterView says what)."""
        self.stock = Stock(generic)
        self.volumes = dict(volumes)
        self.full: dict[object, str] = {}
        self.ports = Holders(self.at, ports)

    def update(self, name: str, facts: NodeFacts, load: Load) -> None:
        """The node is now like this. Not within a pass."""
        i = self.at[name]
        if facts is not self.nodes[i]:
            self.nodes[i] = facts
            self._kind_of[i] = self._kind(facts)
            self._named.clear()
        self._put(i, self._state(i, load))

    def lend(self, name: str, load: Load) -> None:
        """For this pass only the node has this load."""
        i = self.at[name]
        state = self._state(i, load)
        if state != self.where[i].state:
            self._settled(self._detached(self.where[i], [i]), state)

    def restore(self) -> None:
        """Everything as the last `update` said."""
        self._bring_back()
        self._tidy()

    def _tidy(self) -> None:
        """What many passes leave behind must not pile up."""
        self.shelves.drop_empty()
        for answers in (self._eligible, self._named):
            if len(answers) > _ANSWERS_MAX:
                answers.clear()

    # -- classes -------------------------------------------------------------------------------------------------

    def _state(self, i: int, load: Load) -> State:
        kind = self._kind_of[i]
        cpus, memory, pids = self.kinds[kind].total
        return (kind, load.replicas, cpus - load.cpus, memory - load.memory, pids - load.pids if pids else PLENTY)

    def _kind(self, node: NodeFacts) -> int:
        key = (
            node.total, node.state, node.availability, node.role, node.os, node.arch,
            tuple(sorted(node.labels.items())), tuple(sorted(node.engine_labels.items())),
        )  # fmt: skip
        number = self._kind_at.get(key)
        if number is None:
            number = self._kind_at[key] = len(self.kinds)
            self.kinds.append(node)
        return number

    # -- giving --------------------------------------------------------------------------------------------------

    def take(self, parts: Iterable[Part], group: Group) -> None:
        """Give replicas of the group. A class that is in several parts comes with its rest (None) last."""
        cpus, memory, pids = group.reserve
        moved: list[tuple[Alike, State]] = []
        for alike, some, give in parts:
            kind, replicas, has_cpus, has_memory, has_pids = alike.state
            if has_pids != PLENTY:
                has_pids -= pids * give
            moving = self._detached(alike, some)
            moved.append((moving, (kind, replicas + give, has_cpus - cpus * give, has_memory - memory * give, has_pids)))
            if group.ports or group.generic:
                for i in self.all_of(moving):
                    self.ports.add(i, group.ports)
                    self.stock.take(self.names[i], group.generic, give)
        for moving, state in moved:
            self._settled(moving, state)

    def move(self, states: Mapping[State, list[int]]) -> None:
        """For this pass these nodes, in order, are in other states than they were."""
        for state, some in states.items():
            parts: dict[Alike, list[int]] = {}
            for i in some:
                parts.setdefault(self.where[i], []).append(i)
            for alike, of_it in parts.items():
                self._settled(self._detached(alike, of_it), state)

    def take_one(self, i: int, group: Group) -> None:
        self.take(((self.where[i], [i], 1),), group)

    def take_back(self, given: Mapping[int, int], group: Group) -> None:
        """So many replicas of the group from each node."""
        parts: dict[tuple[Alike, int], list[int]] = {}
        for i, count in given.items():
            parts.setdefault((self.where[i], -count), []).append(i)
            self.ports.remove(i, group.ports)
        self.take([(alike, some, count) for (alike, count), some in parts.items()], replace(group, ports=()))

    # -- setting apart -------------------------------------------------------------------------------------------

    def set_apart(self, alike: Alike, some: list[int] | None) -> None:
        """These nodes of a class (None: all) become of a kind of their own, until `reunite`."""
        kind = self._target_of.get(alike.kind)
        if kind is None:
            kind = self._target_of[alike.kind] = len(self.kinds)
            self.kinds.append(self.kinds[alike.kind])
            self.targets[kind] = alike.kind
        self._settled(self._detached(alike, some), (kind, *alike.state[1:]))

    def reunite(self) -> None:
        for alike in [alike for alike in self.classes() if alike.kind in self.targets] if self.targets else ():
            self._settled(self._detached(alike, None), (self.targets[alike.kind], *alike.state[1:]))

    # -- asking --------------------------------------------------------------------------------------------------

    def rank(self, i: int) -> tuple[int, int, int]:
        alike = self.where[i]
        return (alike.replicas, -self.share(alike), i)

    def room(self, alike: Alike, group: Group) -> int:
        """How many more replicas of the group each node of the class can take, but for ports and the most per node."""
        cpus, memory, pids = group.reserve
        room = NODE_REPLICAS_MAX - alike.replicas
        if cpus and alike.cpus < room * cpus:
            room = alike.cpus // cpus
        if memory and alike.memory < room * memory:
            room = alike.memory // memory
        if pids and alike.pids < room * pids:
            room = alike.pids // pids
        return max(room, 0)

    def room_on(self, i: int, group: Group, existing: int) -> int:
        """The same for one node, with everything."""
        room = self.room(self.where[i], group)
        if group.max_per_node:
            room = max(min(room, group.max_per_node - existing), 0)
        if group.ports and room:
            room = 0 if self.ports.taken(i, group.ports) else 1
        return min(room, self.stock.room(self.nodes[i], group.generic)) if group.generic else room

    def kinds_for(self, group: Group) -> set[int]:
        """The kinds that pass every filter that looks at the node alone; what looks at names is not asked."""
        demand = (group.constraints, group.platform)
        seen, kinds = self._eligible.get(demand, (0, set()))
        if seen < len(self.kinds):
            kinds.update(k for k in range(seen, len(self.kinds)) if static_passes(self.kinds[k], group, names=False))
            self._eligible[demand] = (len(self.kinds), kinds)
        return kinds

    def named(self, group: Group) -> list[int] | None:
        """The nodes to be looked at one by one, when the group asks for names or generic resources; None: it does not."""
        if group.node:
            i = self.at.get(group.node)
            return [i] if i is not None and static_passes(self.nodes[i], group) else []
        if not group.generic and not any(constraint.key in BY_NAME for constraint in group.constraints):
            return None
        demand = (group.constraints, group.platform, group.generic)
        known = self._named.get(demand)
        if known is None:
            plain = Group("", constraints=group.constraints, platform=group.platform)
            whole = Stock({})
            known = self._named[demand] = [
                i for i, node in enumerate(self.nodes)
                if (not group.generic or whole.room(node, group.generic)) and static_passes(node, plain)
            ]  # fmt: skip
        return known

    def eligible(self, group: Group) -> list[int]:
        """Nodes that pass every filter that does not depend on loads."""
        named = self.named(group)
        if named is None:
            kinds = self.kinds_for(group)
            named = [i for i, alike in enumerate(self.where) if alike.kind in kinds]
        out = self.shunned(group)
        return [i for i in named if i not in out] if out else named

    def shunned(self, group: Group) -> set[int]:
        return {self.at[name] for _, names in group.shun for name in names if name in self.at}
