"""The running account of placement: nodes in classes of equal ones, so that a step costs the classes it touches, not the nodes.

Rules: nodes are numbers (their place in the view, which is sorted by name, so the number also breaks ties by name). Nodes of
one KIND differ in nothing a filter looks at but their names; nodes of one CLASS are of one kind and have the same left. A
shelf holds the classes of one kind whose free amounts have the same size in bits, in rank order: a group never looks at
shelves too small for it. The account may be kept: `update` tells it what changed, `begin` and `restore` stand around a pass.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappush, merge
from itertools import chain, count
from typing import Final

from scheduler.filters import BY_NAME, static_passes
from scheduler.ports import PortClaim, first_taken
from scheduler.types import NODE_REPLICAS_MAX, ClusterView, Group, Load, NodeFacts

SHARE: Final = 1_000_000
PLENTY: Final = 1 << 60
"""Room without a limit."""
_NONE: Final = Load()

State = tuple[int, int, int, int, int]
"""Of a class: kind, replicas, and what is left of cpus, memory and pids."""


class Alike:
    """A class of equal nodes. `members` is a heap that may hold numbers of nodes that have left: `size` is the truth."""

    __slots__ = ("cpus", "entry", "kind", "members", "memory", "pids", "replicas", "shelf", "size")
    entry: Entry
    shelf: list[Entry]

    def __init__(self, state: State, members: list[int]) -> None:
        self.kind, self.replicas, self.cpus, self.memory, self.pids = state
        self.members = members
        self.size = len(members)


Entry = tuple[int, int, int, Alike]
"""Replicas in all, minus the free share: the smaller is filled first. The third only keeps entries apart."""
Part = tuple[Alike, list[int] | None, int]
"""Some nodes of a class (None: all), and how many replicas each of them gets."""


class Pool:
    def __init__(self, cluster: ClusterView, *, kept: bool = False) -> None:
        self.nodes: list[NodeFacts] = list(cluster.nodes)
        self.names = [node.name for node in self.nodes]
        self.at = {node.name: number for number, node in enumerate(self.nodes)}
        self.kinds: list[NodeFacts] = []
        """Of each kind one node."""
        self.where: list[Alike] = []
        """The class of each node."""
        self._kind_at: dict[object, int] = {}
        self._states: dict[State, Alike] = {}
        self._shelves: dict[tuple[int, int, int], list[Entry]] = {}
        self._serial = count()
        self._eligible: dict[object, tuple[int, set[int]]] = {}
        self._named: dict[object, list[int]] = {}
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

    def _settle(self, alike: Alike) -> None:
        """Put a class where its state belongs; into the class that is there already."""
        kind, cpus, memory = alike.kind, alike.cpus, alike.memory
        state = (kind, alike.replicas, cpus, memory, alike.pids)
        twin = self._states.get(state)
        if twin is None:
            self._states[state] = alike
            where = (kind, _size(cpus), _size(memory))
            shelf = self._shelves.get(where)
            if shelf is None:
                shelf = self._shelves[where] = []
            alike.shelf = shelf
            alike.entry = (alike.replicas, -self.share(alike), next(self._serial), alike)
            insort(shelf, alike.entry)
            return
        if twin.size < alike.size:
            self._states[state] = alike
            alike.shelf, alike.entry = twin.shelf, (*twin.entry[:3], alike)
            twin.shelf[bisect_left(twin.shelf, twin.entry[:3])] = alike.entry
            alike, twin = twin, alike
        moved = self.all_of(alike)
        for i in moved:
            self.where[i] = twin
        if len(moved) * 8 > twin.size:
            twin.members += moved
            heapify(twin.members)
        else:
            for i in moved:
                heappush(twin.members, i)
        twin.size += len(moved)

    def _unshelve(self, alike: Alike) -> None:
        del self._states[alike.kind, alike.replicas, alike.cpus, alike.memory, alike.pids]
        del alike.shelf[bisect_left(alike.shelf, alike.entry)]

    def _leave(self, alike: Alike, gone: int) -> None:
        alike.size -= gone
        if not alike.size:
            self._unshelve(alike)

    def all_of(self, alike: Alike) -> list[int]:
        """The numbers of its nodes, in order. Not to be changed."""
        members = alike.members
        if len(members) != alike.size:
            where = self.where
            members = alike.members = sorted({i for i in members if where[i] is alike})
        else:
            members.sort()
        return members

    def first_of(self, alike: Alike, wanted: int, without: Collection[int]) -> list[int]:
        """Its `wanted` first nodes that are not in `without`."""
        if wanted * 4 > alike.size:
            found = self.all_of(alike)
            return [i for i in found if i not in without][:wanted] if without else found[:wanted]
        members, where = alike.members, self.where
        picked: list[int] = []
        back: list[int] = []
        last = -1
        while members and len(picked) < wanted:
            i = heappop(members)
            if i == last or where[i] is not alike:
                continue
            last = i
            back.append(i)
            if i not in without:
                picked.append(i)
        for i in back:
            heappush(members, i)
        return picked

    # -- giving --------------------------------------------------------------------------------------------------

    def take(self, parts: Iterable[Part], group: Group) -> None:
        """Give replicas of the group. A class that is in several parts comes with its rest (None) last."""
        cpus, memory, pids = group.reserve
        moved: list[Alike] = []
        for alike, some, give in parts:
            moving = self._detached(alike, some)
            moving.replicas += give
            moving.cpus -= cpus * give
            moving.memory -= memory * give
            if moving.pids != PLENTY:
                moving.pids -= pids * give
            moved.append(moving)
            if self._touched is not None:
                self._touched.update(moving.members)
            if group.ports:
                for i in moving.members:
                    self._hold(i, group.ports)
        for alike in moved:
            self._settle(alike)

    def _detached(self, alike: Alike, some: list[int] | None) -> Alike:
        if some is None or len(some) == alike.size:
            self.all_of(alike)
            self._unshelve(alike)
            return alike
        state = (alike.kind, alike.replicas, alike.cpus, alike.memory, alike.pids)
        part = Alike(state, sorted(some))
        for i in some:
            self.where[i] = part
        alike.size -= len(some)
        if len(alike.members) > 2 * alike.size + 8:
            self.all_of(alike)
        return part

    def take_one(self, i: int, group: Group) -> None:
        self.take(((self.where[i], [i], 1),), group)

    # -- asking --------------------------------------------------------------------------------------------------

    def share(self, alike: Alike, give: int = 0, group: Group | None = None) -> int:
        """The free share of the scarcer of cpus and memory, in millionths; after `give` replicas of the group."""
        total = self.kinds[alike.kind].total
        cpus, memory = alike.cpus, alike.memory
        if group is not None:
            cpus, memory = cpus - give * group.reserve.cpus, memory - give * group.reserve.memory
        one = cpus * SHARE // total.cpus if total.cpus else 0
        other = memory * SHARE // total.memory if total.memory else 0
        return min(other, one)

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
        least, less = _size(cpus), _size(memory)
        shelves = [
            shelf for (kind, c, m), shelf in self._shelves.items() if shelf and c >= least and m >= less and kind in kinds
        ]
        for entry in shelves[0] if len(shelves) == 1 else merge(*shelves):
            alike = entry[3]
            if (
                (not cpus or alike.cpus >= cpus) and (not memory or alike.memory >= memory)
                and (not pids or alike.pids >= pids) and alike.replicas < NODE_REPLICAS_MAX
            ):  # fmt: skip
                yield entry

    def classes(self) -> Iterator[Alike]:
        return (entry[3] for entry in chain.from_iterable(self._shelves.values()))

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


def _size(amount: int) -> int:
    """A rough measure that never falls: the number of bits, and the two bits behind the first."""
    if amount < 8:
        return 0
    bits = amount.bit_length()
    return bits << 2 | (amount >> (bits - 3) & 3)
