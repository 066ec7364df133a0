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

from scheduler.classes import GONE, Alike, Classes, Entry, Shelf, State, size_of
from scheduler.filters import BY_NAME, static_passes
from scheduler.generic import Stock
from scheduler.ports import PortClaim, first_taken
from scheduler.types import NODE_REPLICAS_MAX, Amounts, ClusterView, Group, Load, NodeFacts

PLENTY: Final = 1 << 60
"""Room without a limit."""
_NONE: Final = Load()
_NOBODY: Final[Mapping[str, Mapping[str, int]]] = {}
_SORTED_MAX: Final = 1_000
"""So many classes are sorted at once; of more only those that are asked for are."""
_ANSWERS_MAX: Final = 1_000

Part = tuple[Alike, list[int] | None, int]
"""Some nodes of a class (None: all), and how many replicas each of them gets."""

class Levels:
    """How many replicas of one service each node has. Numbers are made late: most placements ask for few of them."""

    __slots__ = ("_all", "_given", "_pool")

    def __init__(self, pool: Pool, given: Mapping[str, int]) -> None:
        self._pool, self._given = pool, given
        self._all: dict[int, int] | None = None

    def __bool__(self) -> bool:
        return bool(self._given if self._all is None else self._all)

    def of(self, i: int) -> int:
        return self._given.get(self._pool.names[i], 0) if self._all is None else self._all.get(i, 0)

    def all(self) -> dict[int, int]:
        """By number, only nodes that have some; what is changed in it counts from then on."""
        if self._all is None:
            at = self._pool.at
            self._all = {at[name]: count for name, count in self._given.items() if count and name in at}
        return self._all

    def copy(self) -> Levels:
        copy = Levels(self._pool, self._given)
        copy._all = dict(self.all())
        return copy

    def add(self, order: Iterable[int]) -> None:
        """One more on each of these."""
        known = self.all()
        for i in order:
            known[i] = known.get(i, 0) + 1


class Pool(Classes):
    def __init__(self, cluster: ClusterView, *, kept: bool = False) -> None:
        super().__init__()
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
        self._undo: list[tuple[list[int], State]] | None = None
        """What a pass changed: nodes, and the state they were in."""
        self._fill(cluster.loads)
        self._undo = [] if kept else None
        self.begin(cluster.volumes, cluster.ports, cluster.generic)

    def _fill(self, loads: Mapping[str, Load]) -> None:
        members: dict[State, list[int]] = {}
        for i, name in enumerate(self.names):
            members.setdefault(self._state(i, loads.get(name, _NONE)), []).append(i)
        places: dict[int, Alike] = {}
        for state, numbers in members.items():
            alike = Alike(state, numbers)
            self._settle(alike)
            places.update(dict.fromkeys(numbers, alike))
        self.where = [places[i] for i in range(len(self.nodes))]
        self._order()

    # -- a kept account ------------------------------------------------------------------------------------------

    def begin(
        self, volumes: Mapping[str, tuple[str, ...]], ports: Mapping[str, Collection[PortClaim]],
        generic: Mapping[str, Mapping[str, int]] = _NOBODY,
    ) -> None:  # fmt: skip
        """What holds for one pass (ClusterView says what)."""
        self.stock = Stock(generic)
        self.volumes = dict(volumes)
        self.full: dict[object, str] = {}
        self._ports = ports
        self._taken: dict[tuple[str, int], dict[int, list[PortClaim]]] | None = None

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
        if self._undo is not None:
            self._undo.append(([i], self.where[i].state()))
        self._put(i, self._state(i, load))

    def restore(self) -> None:
        """Everything as the last `update` said."""
        before: dict[int, State] = {}
        for some, state in reversed(self._undo or ()):  # the first one says how it was
            before.update(dict.fromkeys(some, state))
        for i, state in before.items():
            self._put(i, (self.targets.get(state[0], state[0]), *state[1:]) if self.targets else state)
        if self._undo is not None:
            self._undo = []
        self._tidy()

    def _tidy(self) -> None:
        """What many passes leave behind must not pile up."""
        self._drop_empty_shelves()
        for answers in (self._eligible, self._named):
            if len(answers) > _ANSWERS_MAX:
                answers.clear()

    def _put(self, i: int, state: State) -> None:
        old = self.where[i]
        twin = self._states.get(state)
        if twin is old:
            return
        if twin is not None:
            self._leave(old, 1)
            self.where[i] = twin
            heappush(twin.members, i)
            twin.size += 1
        elif old.size == 1:
            self._unshelve(old)
            old.set(state)
            self._settle(old, old.shelf)
        else:
            self._leave(old, 1)
            self.where[i] = alike = Alike(state, [i])
            self._settle(alike, old.shelf)

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
        moved: list[Alike] = []
        states, undo = self._states, self._undo
        for alike, some, give in parts:
            state = alike.state()
            if some is None or len(some) == alike.size:
                moving = alike
                del states[state]
                alike.entry = GONE
                alike.shelf.gone += 1
            else:
                moving = self._part(alike, some)
            if undo is not None:
                undo.append((list(self.all_of(moving)), state))
            moving.replicas += give
            moving.cpus -= cpus * give
            moving.memory -= memory * give
            if moving.pids != PLENTY:
                moving.pids -= pids * give
            moved.append(moving)
            if group.ports or group.generic:
                for i in self.all_of(moving):
                    self._hold(i, group.ports)
                    self.stock.take(self.names[i], group.generic, give)
        for alike in moved:
            self._settle(alike, alike.shelf)

    def move(self, states: Mapping[State, list[int]]) -> None:
        """For this pass these nodes, in order, are in other states than they were."""
        for state, some in states.items():
            alike = Alike(state, some)
            for i in some:
                old = self.where[i]
                if self._undo is not None:
                    self._undo.append(([i], old.state()))
                self._leave(old, 1)
                self.where[i] = alike
            self._settle(alike)

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

    def walk(self, group: Group, kinds: Collection[int]) -> Iterator[Entry]:
        """The classes of these kinds with some room for the group, in rank order."""
        shelves = self._roomy(group, kinds)
        fresh = max((shelf.best for shelf in shelves if shelf.fresh), default=None)
        for entry in self._in_order(shelves, group.reserve):
            if fresh is not None and entry <= fresh:
                break
            yield entry
        if fresh is not None:
            for shelf in shelves:
                shelf.take_in()
            yield from (entry for entry in self._in_order(shelves, group.reserve) if entry <= fresh)

    def _roomy(self, group: Group, kinds: Collection[int]) -> list[Shelf]:
        """The shelves of these kinds that may have a class with room."""
        cpus, memory = size_of(group.reserve.cpus), size_of(group.reserve.memory)
        return [
            shelf
            for by_cpus in [self._shelves[kind] for kind in kinds if kind in self._shelves]
            for of_cpus, by_memory in by_cpus.items() if of_cpus >= cpus
            for of_memory, shelf in by_memory.items() if of_memory >= memory and shelf
        ]  # fmt: skip

    def _in_order(self, shelves: list[Shelf], reserve: Amounts) -> Iterator[Entry]:
        """The best first, those that have room; without fresh ones."""
        cpus, memory, _ = reserve
        lists: list[list[Entry]] = []
        for shelf in shelves:
            some = shelf.ordered()
            if shelf.cpus < cpus or shelf.memory < memory:
                some = [[entry for entry in entries if _takes(entry[3], reserve)] for entries in some]
            lists += some
        found: Iterable[Entry]
        if len(lists) == 1:
            found = reversed(lists[0])
        elif sum(map(len, lists)) <= _SORTED_MAX:
            found = sorted(chain.from_iterable(lists), reverse=True)
        else:
            found = merge(*map(reversed, lists), reverse=True)
        return (entry for entry in found if entry[3].entry is entry and _takes(entry[3], reserve))

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


def _takes(alike: Alike, reserve: Amounts) -> bool:
    """Whether each node of the class has room for one more, but for ports and the most per node."""
    cpus, memory, pids = reserve
    return (
        (not cpus or alike.cpus >= cpus) and (not memory or alike.memory >= memory) and (not pids or alike.pids >= pids)
        and alike.replicas < NODE_REPLICAS_MAX
    )  # fmt: skip
