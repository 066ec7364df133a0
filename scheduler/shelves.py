"""Shelves: the classes of nodes in rank order, and the walk over those that have room.

Rules: a shelf holds the classes of one kind whose free amounts are about the same, so that who asks for more than a shelf has
never looks at it. A class that moves leaves its entry behind, which holds no more. A shelf is put in order when somebody asks.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterable, Iterator
from heapq import merge
from itertools import chain, count
from typing import Final

from scheduler.types import NODE_REPLICAS_MAX, Amounts

SHARE: Final = 1_000_000
_FEW: Final = 16
"""New entries that are fewer than one to so many old ones are put in one by one; otherwise all are sorted."""

_YOUNG_MAX: Final = 2_000
"""A shelf of more classes keeps the last ones apart, up to so many or a sixteenth of it."""

_SHELVES_MAX: Final = 1_000
"""So few are always kept."""

_SORTED_MAX: Final = 1_000
"""So many classes are sorted at once; of more only those that are asked for are."""

State = tuple[int, int, int, int, int]
"""Of a class: kind, replicas, and what is left of cpus, memory and pids."""


class Alike:
    """A class of equal nodes. `members` is a heap that may hold numbers of nodes that have left: `size` is the truth."""

    __slots__ = ("entry", "members", "shelf", "size", "state")
    entry: Entry
    shelf: Shelf

    def __init__(self, state: State, members: list[int]) -> None:
        self.state = state
        self.members = members
        self.size = len(members)

    @property
    def kind(self) -> int:
        return self.state[0]

    @property
    def replicas(self) -> int:
        return self.state[1]

    @property
    def cpus(self) -> int:
        return self.state[2]

    @property
    def memory(self) -> int:
        return self.state[3]

    @property
    def pids(self) -> int:
        return self.state[4]


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


class Shelves:
    def __init__(self) -> None:
        self._shelves: dict[int, dict[int, dict[int, Shelf]]] = {}
        """By kind, and by the sizes of cpus and memory."""
        self._count, self._most = 0, _SHELVES_MAX
        self._serial = count()

    def put(self, alike: Alike, total: Amounts, shelf: Shelf | None = None) -> None:
        """A class where its state belongs. `total`: what each of its nodes has. `shelf`: maybe the one."""
        kind, replicas, cpus, memory, _ = alike.state
        if shelf is None or not (
            shelf.cpus <= cpus < shelf.cpus_end and shelf.memory <= memory < shelf.memory_end and shelf.kind == kind
        ):
            shelf = self._at(kind, cpus, memory)
        alike.shelf = shelf
        alike.entry = entry = (-replicas, share_of(cpus, memory, total), next(self._serial), alike)
        shelf.put(entry)

    def remove(self, alike: Alike) -> None:
        alike.entry = GONE
        alike.shelf.gone += 1

    def order(self) -> None:
        """All, so that nobody has to wait for it later."""
        for shelf in self._all():
            shelf.take_in()

    def drop_empty(self) -> None:
        """Once there are twice as many as were left the last time."""
        if self._count <= self._most:
            return
        for by_cpus in self._shelves.values():
            for size, some in by_cpus.items():
                by_cpus[size] = {memory: shelf for memory, shelf in some.items() if shelf}
        self._count = sum(1 for _ in self._all())
        self._most = max(2 * self._count, _SHELVES_MAX)

    def walk(self, reserve: Amounts, kinds: Collection[int]) -> Iterator[Entry]:
        """The classes of these kinds whose nodes have room for one more that reserves so much, in rank order."""
        shelves = self._roomy(reserve, kinds)
        fresh = max((shelf.best for shelf in shelves if shelf.fresh), default=None)
        for entry in _in_order(shelves, reserve):
            if fresh is not None and entry <= fresh:
                break
            yield entry
        if fresh is not None:
            for shelf in shelves:
                shelf.take_in()
            yield from (entry for entry in _in_order(shelves, reserve) if entry <= fresh)

    def _at(self, kind: int, cpus: int, memory: int) -> Shelf:
        by_memory = self._shelves.setdefault(kind, {}).setdefault(size_of(cpus), {})
        size = size_of(memory)
        shelf = by_memory.get(size)
        if shelf is None:
            shelf = by_memory[size] = Shelf(kind, cpus, memory)
            self._count += 1
        return shelf

    def _all(self) -> Iterator[Shelf]:
        return (shelf for by_cpus in self._shelves.values() for some in by_cpus.values() for shelf in some.values())

    def _roomy(self, reserve: Amounts, kinds: Collection[int]) -> list[Shelf]:
        """The shelves of these kinds that may have a class with room."""
        cpus, memory = size_of(reserve.cpus), size_of(reserve.memory)
        return [
            shelf
            for by_cpus in [self._shelves[kind] for kind in kinds if kind in self._shelves]
            for of_cpus, by_memory in by_cpus.items() if of_cpus >= cpus
            for of_memory, shelf in by_memory.items() if of_memory >= memory and shelf
        ]  # fmt: skip


def _in_order(shelves: list[Shelf], reserve: Amounts) -> Iterator[Entry]:
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


def _takes(alike: Alike, reserve: Amounts) -> bool:
    """Whether each node of the class has room for one more, but for ports and the most per node."""
    cpus, memory, pids = reserve
    _, replicas, has_cpus, has_memory, has_pids = alike.state
    return (
        (not cpus or has_cpus >= cpus) and (not memory or has_memory >= memory) and (not pids or has_pids >= pids)
        and replicas < NODE_REPLICAS_MAX
    )  # fmt: skip


def share_of(cpus: int, memory: int, total: Amounts) -> int:
    """How much of `total` this is, of the scarcer of cpus and memory, in millionths."""
    of_cpus, of_memory, _ = total
    one = cpus * SHARE // of_cpus if of_cpus else 0
    other = memory * SHARE // of_memory if of_memory else 0
    return min(one, other)


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
