"""Classes of equal nodes: how they are found by their state, kept in rank order, split, and put together again.

Rules: nodes of one KIND differ in nothing a filter looks at but their names; nodes of one CLASS are of one kind and have the
same left. A shelf holds the classes of one kind whose free amounts are about the same, in rank order. A class that moves
takes its list of nodes with it; where two meet, the smaller joins the larger. It leaves its entry behind on the shelf, which
is put in order when somebody asks.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Final

from scheduler.types import Group, NodeFacts

SHARE: Final = 1_000_000
_FEW: Final = 16
"""New entries that are fewer than one to so many old ones are put in one by one; otherwise all are sorted."""

_YOUNG_MAX: Final = 2_000
"""A shelf of more classes keeps the last ones apart, up to so many or a sixteenth of it."""

_SHELVES_MAX: Final = 1_000
"""So few are always kept."""

State = tuple[int, int, int, int, int]
"""Of a class: kind, replicas, and what is left of cpus, memory and pids."""


class Alike:
    """A class of equal nodes. `members` is a heap that may hold numbers of nodes that have left: `size` is the truth."""

    __slots__ = ("cpus", "entry", "kind", "members", "memory", "pids", "replicas", "shelf", "size")
    entry: Entry
    shelf: Shelf

    def __init__(self, state: State, members: list[int]) -> None:
        self.set(state)
        self.members = members
        self.size = len(members)

    def state(self) -> State:
        return (self.kind, self.replicas, self.cpus, self.memory, self.pids)

    def set(self, state: State) -> None:
        self.kind, self.replicas, self.cpus, self.memory, self.pids = state


Entry = tuple[int, int, int, Alike]
"""Minus the replicas in all, and the free share: the larger is filled first. The third only keeps entries apart. It holds as
long as it is its class's `entry`."""

GONE: Final[Entry] = (0, 0, -1, Alike((-1, 0, 0, 0, 0), []))
"""The entry of a class that is not on a shelf."""
_WORST: Final[Entry] = (-(1 << 200), *GONE[1:])


class Shelf:
    """Classes of one kind with at least these amounts left, and less than those of `_end`."""

    __slots__ = ("best", "cpus", "cpus_end", "fresh", "gone", "kind", "memory", "memory_end", "old", "young")

    def __init__(self, kind: int, cpus: int, memory: int) -> None:
        self.kind = kind
        self.cpus, self.cpus_end = bounds(cpus)
        self.memory, self.memory_end = bounds(memory)
        self.old: list[Entry] = []
        self.young: list[Entry] = []
        """The same for what came last, so that no long list is shifted for one entry."""
        self.fresh: list[Entry] = []
        """Not in order yet: who has just got a replica is seldom among the next ones."""
        self.best = _WORST
        """Of the fresh ones; it may hold no more."""
        self.gone = 0
        """So many entries hold no more."""

    def __bool__(self) -> bool:
        return len(self.old) + len(self.young) + len(self.fresh) > self.gone

    def put(self, entry: Entry) -> None:
        self.fresh.append(entry)
        if entry > self.best:
            self.best = entry

    def ordered(self) -> list[list[Entry]]:
        """The entries but for the fresh ones, each list in rank order, the best last; some of them may hold no more."""
        old, young = len(self.old), len(self.young)
        if self.gone * 2 > old + young + len(self.fresh) or young > max(_YOUNG_MAX, old // _FEW):
            every = (self.old, self.young, self.fresh)
            self.old = sorted(entry for entries in every for entry in entries if entry[3].entry is entry)
            self.gone, self.young, self.fresh, self.best = 0, [], [], _WORST
        elif self.gone:
            self.gone -= _trim(self.old) + _trim(self.young)
        return [entries for entries in (self.old, self.young) if entries]

    def take_in(self) -> None:
        """Put the fresh entries in order too."""
        fresh = [entry for entry in self.fresh if entry[3].entry is entry]
        self.gone -= len(self.fresh) - len(fresh)
        young = self.old if len(self.old) <= _YOUNG_MAX else self.young
        if len(fresh) * _FEW <= len(young):
            for entry in fresh:
                insort(young, entry)
        else:
            young += fresh
            young.sort()
        self.fresh, self.best = [], _WORST


def _trim(entries: list[Entry]) -> int:
    """Those that hold no more are mostly the last ones."""
    before = len(entries)
    while entries and entries[-1][3].entry is not entries[-1]:
        entries.pop()
    return before - len(entries)


class Classes:
    def __init__(self) -> None:
        self.kinds: list[NodeFacts] = []
        """Of each kind one node."""
        self.where: list[Alike] = []
        """The class of each node."""
        self._states: dict[State, Alike] = {}
        self._shelves: dict[int, dict[int, dict[int, Shelf]]] = {}
        """By kind, and by the sizes of cpus and memory."""
        self._shelf_count, self._shelves_most = 0, _SHELVES_MAX
        self._serial = count()

    def _settle(self, alike: Alike, shelf: Shelf | None = None) -> None:
        """Put a class where its state belongs; into the class that is there already. `shelf`: maybe its own."""
        cpus, memory = alike.cpus, alike.memory
        state = alike.state()
        twin = self._states.get(state)
        if twin is not None:
            alike = self._joined(alike, twin)
            if alike is twin:
                return
            shelf, twin.entry = twin.shelf, GONE
            shelf.gone += 1
        self._states[state] = alike
        if shelf is None or not (
            shelf.cpus <= cpus < shelf.cpus_end and shelf.memory <= memory < shelf.memory_end and shelf.kind == alike.kind
        ):
            shelf = self._shelf(alike)
        of_cpus, of_memory, _ = self.kinds[alike.kind].total
        one = cpus * SHARE // of_cpus if of_cpus else 0
        other = memory * SHARE // of_memory if of_memory else 0
        alike.shelf = shelf
        alike.entry = entry = (-alike.replicas, min(one, other), next(self._serial), alike)
        shelf.put(entry)

    def _shelf(self, alike: Alike) -> Shelf:
        by_memory = self._shelves.setdefault(alike.kind, {}).setdefault(size_of(alike.cpus), {})
        size = size_of(alike.memory)
        shelf = by_memory.get(size)
        if shelf is None:
            shelf = by_memory[size] = Shelf(alike.kind, alike.cpus, alike.memory)
            self._shelf_count += 1
        return shelf

    def _all_shelves(self) -> Iterator[Shelf]:
        return (shelf for by_cpus in self._shelves.values() for some in by_cpus.values() for shelf in some.values())

    def _order(self) -> None:
        """All shelves, so that nobody has to wait for it later."""
        for shelf in self._all_shelves():
            shelf.take_in()

    def _drop_empty_shelves(self) -> None:
        """Once there are twice as many as were left the last time."""
        if self._shelf_count <= self._shelves_most:
            return
        for by_cpus in self._shelves.values():
            for size, some in by_cpus.items():
                by_cpus[size] = {memory: shelf for memory, shelf in some.items() if shelf}
        self._shelf_count = sum(1 for _ in self._all_shelves())
        self._shelves_most = max(2 * self._shelf_count, _SHELVES_MAX)

    def _joined(self, alike: Alike, twin: Alike) -> Alike:
        """The larger, with the nodes of the smaller."""
        if twin.size < alike.size:
            alike, twin = twin, alike
        moved, where = self.all_of(alike), self.where
        for i in moved:
            where[i] = twin
        if len(moved) * 8 > twin.size:
            twin.members += moved
            twin.members.sort()
        else:
            for i in moved:
                heappush(twin.members, i)
        twin.size += len(moved)
        return twin

    def _unshelve(self, alike: Alike) -> None:
        del self._states[alike.state()]
        alike.entry = GONE
        alike.shelf.gone += 1

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

    def _detached(self, alike: Alike, some: list[int] | None) -> Alike:
        if some is None or len(some) == alike.size:
            self._unshelve(alike)
            return alike
        return self._part(alike, some)

    def _part(self, alike: Alike, some: list[int]) -> Alike:
        """A class of its own, not yet on a shelf, of some nodes of a class."""
        part = Alike(alike.state(), sorted(some))
        part.shelf = alike.shelf
        for i in some:
            self.where[i] = part
        alike.size -= len(some)
        if len(alike.members) > 2 * alike.size + 8:
            self.all_of(alike)
        return part

    def share(self, alike: Alike, give: int = 0, group: Group | None = None) -> int:
        """The free share of the scarcer of cpus and memory, in millionths; after `give` replicas of the group."""
        total = self.kinds[alike.kind].total
        cpus, memory = alike.cpus, alike.memory
        if group is not None:
            cpus, memory = cpus - give * group.reserve.cpus, memory - give * group.reserve.memory
        one = cpus * SHARE // total.cpus if total.cpus else 0
        other = memory * SHARE // total.memory if total.memory else 0
        return min(other, one)

    def classes(self) -> Iterator[Alike]:
        return iter(self._states.values())


def size_of(amount: int) -> int:
    """A rough measure that never falls: the number of bits, and the two bits behind the first."""
    if amount < 8:
        return 0
    bits = amount.bit_length()
    return bits << 2 | (amount >> (bits - 3) & 3)


def bounds(amount: int) -> tuple[int, int]:
    """The smallest amount of this size, and the smallest of the next one."""
    if amount < 8:
        return -(1 << 200), 8
    few = amount.bit_length() - 3
    return amount >> few << few, (amount >> few) + 1 << few
