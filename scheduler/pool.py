"""The running account of placement: nodes in classes of equal ones, so that a step costs the classes it touches, not the nodes.

Rules: nodes are numbers (their place in the view, which is sorted by name, so the number also breaks ties by name). A group
never looks at shelves (classes.py) too small for it. The account may be kept: `update` tells it what changed, `begin` and
`restore` stand around a pass.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from heapq import heappush, merge
from itertools import chain
from typing import Final

from scheduler.classes import GONE, Alike, Classes, Entry, State, size_of
from scheduler.filters import BY_NAME, static_passes
from scheduler.ports import PortClaim, first_taken
from scheduler.types import NODE_REPLICAS_MAX, ClusterView, Group, Load, NodeFacts

PLENTY: Final = 1 << 60
"""Room without a limit."""
_NONE: Final = Load()
_SORTED_MAX: Final = 1_000
"""So many classes are sorted at once; of more only those that are asked for are."""
_SHELVES_MAX: Final = 1_000
_ANSWERS_MAX: Final = 1_000

Part = tuple[Alike, list[int] | None, int]
"""Some nodes of a class (None: all), and how many replicas each of them gets."""

class Pool(Classes):
    def __init__(self, cluster: ClusterView, *, kept: bool = False) -> None:
        super().__init__()
        self.nodes: list[NodeFacts] = list(cluster.nodes)
        self.names = [node.name for node in self.nodes]
        self.at = {node.name: number for number, node in enumerate(self.nodes)}
        self._kind_at: dict[object, int] = {}
        self._eligible: dict[object, tuple[int, set[int]]] = {}
        self._named: dict[object, list[int]] = {}
        self.targets: dict[int, int] = {}
        """Kinds that are set apart, each with the kind its nodes are of otherwise."""
        self._target_of: dict[int, int] = {}
        self._loads = [cluster.loads.get(node.name, _NONE) for node in self.nodes]
        self._touched: set[int] | None = None
        self._fill()
        self._touched = set() if kept else None
        self.begin(cluster.volumes, cluster.ports)

    def _fill(self) -> None:
        members: dict[State, list[int]] = {}
        for i, node in enumerate(self.nodes):
            members.setdefault(self._state(node, self._loads[i]), []).append(i)
        places: dict[int, Alike] = {}
        for state, numbers in members.items():
            alike = Alike(state, numbers)
            self._settle(alike)
            places.update(dict.fromkeys(numbers, alike))
        self.where = [places[i] for i in range(len(self.nodes))]

    # -- a kept account ------------------------------------------------------------------------------------------

    def begin(self, volumes: Mapping[str, tuple[str, ...]], ports: Mapping[str, Collection[PortClaim]]) -> None:
        """What holds for one pass."""
        self.volumes = dict(volumes)
        self.full: dict[object, str] = {}
        self._ports = ports
        self._taken: dict[tuple[str, int], dict[int, list[PortClaim]]] | None = None

    def update(self, name: str, facts: NodeFacts, load: Load) -> None:
        """The node is now like this."""
        i = self.at[name]
        if facts is not self.nodes[i]:
            self.nodes[i] = facts
            self._named.clear()
        self._loads[i] = load
        self._put(i, load)

    def lend(self, name: str, load: Load) -> None:
        """For this pass only the node has this load."""
        i = self.at[name]
        self._put(i, load)
        if self._touched is not None:
            self._touched.add(i)

    def restore(self) -> None:
        """Everything as the last `update` said."""
        for i in sorted(self._touched or ()):
            self._put(i, self._loads[i])
        if self._touched is not None:
            self._touched = set()
        self._tidy()

    def _tidy(self) -> None:
        """What many passes leave behind must not pile up."""
        if len(self._shelves) > _SHELVES_MAX:
            self._shelves = {where: shelf for where, shelf in self._shelves.items() if shelf}
        for answers in (self._eligible, self._named):
            if len(answers) > _ANSWERS_MAX:
                answers.clear()

    def _put(self, i: int, load: Load) -> None:
        state = self._state(self.nodes[i], load)
        old = self.where[i]
        twin = self._states.get(state)
        if twin is old:
            return
        self._leave(old, 1)
        if twin is None:
            self.where[i] = alike = Alike(state, [i])
            self._settle(alike)
        else:
            self.where[i] = twin
            heappush(twin.members, i)
            twin.size += 1

    # -- classes -------------------------------------------------------------------------------------------------

    def _state(self, node: NodeFacts, load: Load) -> State:
        total = node.total
        pids = total.pids - load.pids if total.pids else PLENTY
        return (self._kind(node), load.replicas, total.cpus - load.cpus, total.memory - load.memory, pids)

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
        moved: list[Alike] = []
        states, touched = self._states, set() if self._touched is None else self._touched
        downwards = True
        for alike, some, give in parts:
            if some is None or len(some) == alike.size:
                moving = alike
                del states[alike.kind, alike.replicas, alike.cpus, alike.memory, alike.pids]
                alike.entry = GONE
                alike.shelf.gone += 1
            else:
                moving = self._part(alike, some)
            touched.update(moving.members)  # those that have left it do no harm there
            moving.replicas += give
            moving.cpus -= cpus * give
            moving.memory -= memory * give
            if moving.pids != PLENTY:
                moving.pids -= pids * give
            moved.append(moving)
            downwards = downwards and give > 0
            if group.ports:
                for i in self.all_of(moving):
                    self._hold(i, group.ports)
        for alike in moved:
            self._settle(alike, alike.shelf if downwards else None)

    def take_one(self, i: int, group: Group) -> None:
        self.take(((self.where[i], [i], 1),), group)

    def take_back(self, given: Mapping[int, int], group: Group) -> None:
        """So many replicas of the group from each node."""
        parts: dict[tuple[Alike, int], list[int]] = {}
        for i, count in given.items():
            parts.setdefault((self.where[i], -count), []).append(i)
            for port in group.ports:
                self._holders(port)[i].remove(port)
        self.take([(alike, some, count) for (alike, count), some in parts.items()], replace(group, ports=()))

    # -- setting apart -------------------------------------------------------------------------------------------

    def set_apart(self, alike: Alike, some: list[int] | None) -> None:
        """These nodes of a class (None: all) become of a kind of their own, until `reunite`."""
        kind = self._target_of.get(alike.kind)
        if kind is None:
            kind = self._target_of[alike.kind] = len(self.kinds)
            self.kinds.append(self.kinds[alike.kind])
            self.targets[kind] = alike.kind
        moving = self._detached(alike, some)
        moving.kind = kind
        self._settle(moving)

    def reunite(self) -> None:
        for alike in [alike for alike in self.classes() if alike.kind in self.targets] if self.targets else ():
            moving = self._detached(alike, None)
            moving.kind = self.targets[moving.kind]
            self._settle(moving)

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
            room = 0 if self.taken_port(i, group) else 1
        return room

    def kinds_for(self, group: Group) -> set[int]:
        """The kinds that pass every filter that looks at the node alone; what looks at names is not asked."""
        demand = (group.constraints, group.platform)
        seen, kinds = self._eligible.get(demand, (0, set()))
        if seen < len(self.kinds):
            kinds.update(k for k in range(seen, len(self.kinds)) if static_passes(self.kinds[k], group, names=False))
            self._eligible[demand] = (len(self.kinds), kinds)
        return kinds

    def named(self, group: Group) -> list[int] | None:
        """The nodes to be looked at one by one, when the group asks for names; None: it does not."""
        if group.node:
            i = self.at.get(group.node)
            return [i] if i is not None and static_passes(self.nodes[i], group) else []
        if not any(constraint.key in BY_NAME for constraint in group.constraints):
            return None
        demand = (group.constraints, group.platform)
        known = self._named.get(demand)
        if known is None:
            plain = Group("", constraints=group.constraints, platform=group.platform)
            known = self._named[demand] = [i for i, node in enumerate(self.nodes) if static_passes(node, plain)]
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

    def walk(self, group: Group, kinds: Collection[int]) -> Iterator[Entry]:
        """The classes of these kinds with some room for the group, in rank order."""
        cpus, memory, pids = group.reserve
        least, less = size_of(cpus), size_of(memory)
        shelves = [
            entries
            for (kind, c, m), shelf in self._shelves.items()
            if c >= least and m >= less and kind in kinds and shelf
            for entries in shelf.ordered()
        ]
        found: Iterable[Entry]
        if sum(map(len, shelves)) <= _SORTED_MAX:
            found = sorted(chain.from_iterable(shelves)) if len(shelves) > 1 else chain.from_iterable(shelves)
        else:
            found = merge(*shelves)
        for entry in found:
            alike = entry[3]
            if (
                alike.entry is entry and (not cpus or alike.cpus >= cpus) and (not memory or alike.memory >= memory)
                and (not pids or alike.pids >= pids) and alike.replicas < NODE_REPLICAS_MAX
            ):  # fmt: skip
                yield entry

    # -- ports ---------------------------------------------------------------------------------------------------

    def taken_port(self, i: int, group: Group) -> str:
        """A port of the group that somebody has on the node (`8080/tcp`), or ""."""
        found = (port for port in group.ports if first_taken([port], self._holders(port).get(i, ())))
        return next((port.text for port in found), "")

    def clashing(self, group: Group) -> set[int]:
        """The nodes where one of the group's ports is taken."""
        return {i for port in group.ports for i, claims in self._holders(port).items() if first_taken([port], claims)}

    def _holders(self, port: PortClaim) -> dict[int, list[PortClaim]]:
        """By node who has this number, on whatever address."""
        if self._taken is None:
            self._taken = {}
            for name, claims in self._ports.items():
                if name in self.at:
                    self._hold(self.at[name], claims)
        return self._taken.get((port.protocol, port.number), {})

    def _hold(self, i: int, ports: Iterable[PortClaim]) -> None:
        for port in ports:
            if self._taken is not None:
                self._taken.setdefault((port.protocol, port.number), {}).setdefault(i, []).append(port)
