"""Classes of equal nodes: how they are found by their state, split, put together again, and brought back behind a pass.

Rules: nodes of one KIND differ in nothing a filter looks at but their names; nodes of one CLASS are of one kind and have the
same left. A class that moves takes its list of nodes with it; where two meet, the smaller joins the larger. What a pass moves
meets only what it has moved too: the book of the others stays as it is, however large, and is not looked at behind it either.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from heapq import heappop, heappush
from itertools import chain

from scheduler.shelves import GONE, SHARE, Alike, Shelves, State, share_of
from scheduler.types import Group, NodeFacts


class Moves:
    """What a pass has moved, each node once: the class they were in, its state, and the nodes. Columns, because a tuple for
    each move would keep the collector of cycles busy."""

    __slots__ = ("classes", "nodes", "states")

    def __init__(self) -> None:
        self.classes: list[Alike] = []
        self.states: list[State] = []
        self.nodes: list[list[int]] = []

    def note(self, alike: Alike, state: State, some: list[int]) -> None:
        self.classes.append(alike)
        self.states.append(state)
        self.nodes.append(some if len(some) == 1 else list(some))  # the list of a lone node is never changed (`_gain`)

    def __iter__(self) -> Iterator[tuple[Alike, State, list[int]]]:
        return zip(self.classes, self.states, self.nodes, strict=True)


class Classes:
    def __init__(self, *, kept: bool) -> None:
        """`kept`: what a pass moves is noted, so that it can be brought back."""
        self.kinds: list[NodeFacts] = []
        """Of each kind one node."""
        self.where: list[Alike] = []
        """The class of each node."""
        self.shelves = Shelves()
        self._states: dict[State, Alike] = {}
        """Outside of passes, the class in this state; in a pass some may have moved."""
        self._met: dict[State, Alike] = {}
        """The same of those that a pass has moved."""
        self._made: list[Alike] = []
        """Those that a pass has made."""
        self._moves = Moves() if kept else None

    def classes(self) -> Iterator[Alike]:
        return (alike for alike in chain(self._states.values(), self._made) if alike.size)

    # -- outside of passes ---------------------------------------------------------------------------------------

    def _arrange(self, states: Iterable[State]) -> None:
        """The nodes, in order, are in these states. The classes are made in rank order, so that those that are asked for
        together lie together: with a million classes a pass waits for memory, not for the processor."""
        members: dict[State, list[int]] = {}
        i = -1
        for i, state in enumerate(states):
            members.setdefault(state, []).append(i)
        where = self.where = [GONE[3]] * (i + 1)
        for state in sorted(members, key=self._rank_of, reverse=True):
            numbers = members.pop(state)
            self._states[state] = alike = Alike(state, numbers)
            self.shelves.put(alike, self.kinds[state[0]].total)
            for i in numbers:
                where[i] = alike
        self.shelves.order()

    def _rank_of(self, state: State) -> int:
        kind, replicas, cpus, memory, _ = state
        return replicas * SHARE - share_of(cpus, memory, self.kinds[kind].total)

    def _put(self, i: int, state: State) -> None:
        """The node is now in this state."""
        old = self.where[i]
        twin = self._states.get(state)
        if twin is old:
            return
        if twin is not None:
            self._leave(old, self._states)
            self.where[i] = twin
            heappush(twin.members, i)
            twin.size += 1
        elif old.size == 1:
            self._take_off(old, self._states)
            old.state = state
            self._settle(old, self._states)
        else:
            self._leave(old, self._states)
            self.where[i] = alike = Alike(state, [i])
            alike.shelf = old.shelf
            self._settle(alike, self._states)

    # -- in a pass -----------------------------------------------------------------------------------------------

    def _detached(self, alike: Alike, some: list[int] | None) -> Alike:
        """These nodes of a class (None: all) as a class that is on no shelf, to be put into another state and settled."""
        state = alike.state
        moving, moved = alike, self._met.get(state) is alike
        if some is not None and len(some) < alike.size:
            moving = self._part(alike, some)
        else:
            if moved:
                del self._met[state]
            self.shelves.remove(alike)
        if not moved and self._moves is not None:  # otherwise it is known where its nodes were
            self._moves.note(alike, state, self.all_of(moving))
        return moving

    def _settled(self, alike: Alike, state: State) -> None:
        alike.state = state
        self._settle(alike, self._met)

    def _bring_back(self) -> None:
        """Every node into the class it had before the pass."""
        for alike in self._made:
            if alike.size:
                self.shelves.remove(alike)
        for alike, state, some in self._moves or ():
            if alike.state is state and alike.size:
                self._gain(alike, some)
                continue
            if alike.size != len(some) or alike.members != some:  # most moved as they are, and meet nobody
                for i in some:
                    self.where[i] = alike
            if alike.entry is not GONE:
                alike.shelf.gone += 1
            alike.state, alike.members, alike.size = state, some, len(some)
            self.shelves.put(alike, self.kinds[state[0]].total, alike.shelf)
        self._met, self._made = {}, []
        if self._moves is not None:
            self._moves = Moves()

    # -- both ----------------------------------------------------------------------------------------------------

    def _settle(self, alike: Alike, states: dict[State, Alike]) -> None:
        """Put a class where its state belongs; into the class that is there already."""
        state = alike.state
        twin = states.get(state)
        if twin is not None:
            smaller, larger = (alike, twin) if alike.size <= twin.size else (twin, alike)
            self._gain(larger, self.all_of(smaller))
            smaller.size = 0
            if larger is twin:
                alike.entry = GONE
                return
            self.shelves.remove(twin)
        states[state] = alike
        self.shelves.put(alike, self.kinds[state[0]].total, alike.shelf)

    def _gain(self, alike: Alike, some: list[int]) -> None:
        """These nodes are of this class too."""
        where = self.where
        for i in some:
            where[i] = alike
        if len(some) * 8 > alike.size:
            alike.members = sorted((*alike.members, *some))
        else:
            for i in some:
                heappush(alike.members, i)
        alike.size += len(some)

    def _take_off(self, alike: Alike, states: dict[State, Alike]) -> None:
        if states.get(alike.state) is alike:
            del states[alike.state]
        self.shelves.remove(alike)

    def _leave(self, alike: Alike, states: dict[State, Alike]) -> None:
        """One node less."""
        alike.size -= 1
        if not alike.size:
            self._take_off(alike, states)

    def _part(self, alike: Alike, some: list[int]) -> Alike:
        """A class of its own, not yet on a shelf, of some nodes of a class."""
        part = Alike(alike.state, sorted(some))
        part.shelf = alike.shelf
        self._made.append(part)
        for i in some:
            self.where[i] = part
        alike.size -= len(some)
        if len(alike.members) > 2 * alike.size + 8:
            self.all_of(alike)
        return part

    # -- asking --------------------------------------------------------------------------------------------------

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

    def share(self, alike: Alike, give: int = 0, group: Group | None = None) -> int:
        """The free share of the scarcer of cpus and memory, in millionths; after `give` replicas of the group."""
        kind, _, cpus, memory, _ = alike.state
        if group is not None:
            cpus, memory = cpus - give * group.reserve.cpus, memory - give * group.reserve.memory
        return share_of(cpus, memory, self.kinds[kind].total)
