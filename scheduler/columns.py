"""The account of the nodes as columns of numbers, for one batch of very many replicas (bulk.py says when).

Rules: by node number. Every step gives what fill.py gives on classes, the order of the slots too: a test compares them. The
rank is one number: replicas, then minus the free share, then the node. Classes are not looked at until `put_back`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scheduler.bulk import NODE_BITS, SHARE_BITS
from scheduler.pool import PLENTY, Pool
from scheduler.shelves import SHARE, State
from scheduler.types import NODE_REPLICAS_MAX, Group

Numbers = NDArray[np.int64]

_EVEN: Final = 1 << (SHARE_BITS - 1)
_NODE: Final = (1 << NODE_BITS) - 1


class Columns:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        where = pool.where
        totals = [pool.kinds[alike.kind].total for alike in where]
        self._kind = _column([alike.kind for alike in where])
        self._replicas = _column([min(alike.replicas, NODE_REPLICAS_MAX) for alike in where])
        self._before = self._replicas.copy()
        self._cpus, self._memory = _column([alike.cpus for alike in where]), _column([alike.memory for alike in where])
        self._pids = _column([alike.pids for alike in where])
        self._unlimited = self._pids == PLENTY
        self._of_cpus = _column([of.cpus or 1 for of in totals])
        self._of_memory = _column([of.memory or 1 for of in totals])
        self._names = np.array(pool.names, dtype=object)
        self._rank = self._ranked(np.arange(len(where)))
        self._passing: dict[object, NDArray[np.bool_]] = {}

    def fill(self, group: Group, existing: Mapping[int, int], count: int) -> list[str]:
        """The nodes' names for up to `count` replicas, in slot order; shorter when there is no more room."""
        at = fresh = self._fitting(group)
        level = np.zeros_like(at)
        if existing:
            levels = np.zeros_like(self._kind)
            levels[list(existing)] = list(existing.values())
            level = levels[at]
            fresh = at[level == 0]
        order = self._one_each(fresh, count, group) if count <= len(fresh) else self._levelled(at, level, count, group)
        names: list[str] = self._names[order].tolist()
        return names

    def put_back(self) -> None:
        """Into the classes."""
        changed = np.flatnonzero(self._replicas != self._before)
        pids = np.where(self._unlimited[changed], PLENTY, self._pids[changed])
        columns = (self._kind[changed], self._replicas[changed], self._cpus[changed], self._memory[changed], pids)
        states: dict[State, list[int]] = {}
        for i, state in zip(changed.tolist(), zip(*(column.tolist() for column in columns), strict=True), strict=True):
            states.setdefault(state, []).append(i)
        self._pool.move(states)

    def _fitting(self, group: Group) -> Numbers:
        """The nodes that take one more, in order."""
        demand = (group.constraints, group.platform)
        passing = self._passing.get(demand)
        if passing is None:
            passing = self._passing[demand] = np.isin(self._kind, list(self._pool.kinds_for(group)))
        passing = passing & (self._replicas < NODE_REPLICAS_MAX)
        for want, left in zip(group.reserve, (self._cpus, self._memory, self._pids), strict=True):
            if want:
                passing &= left >= want
        return np.flatnonzero(passing)

    def _one_each(self, at: Numbers, count: int, group: Group) -> Numbers:
        """One for each of the `count` first ones of these nodes, which have none and room for one."""
        rank = self._rank[at]
        if count < len(rank):
            rank = np.partition(rank, count - 1)[:count] if count else rank[:0]
        rank.sort()
        chosen = rank & _NODE
        self._take(chosen, 1, group)
        return chosen

    def _levelled(self, at: Numbers, level: Numbers, count: int, group: Group) -> Numbers:
        """So many for each of these nodes, which have `level`, that all come to the same level, as far as they have room."""
        room = self._room(at, level, group)
        top = _water_level(level, room, count)
        give = np.clip(np.minimum(room, top - level), 0, None)
        left = count - int(give.sum())
        last = np.flatnonzero((level + give == top) & (give < room)) if left else at[:0]
        if 0 < left < len(last):
            after = self._ranked(at[last], give[last], group) & ~_NODE | last
            last = np.partition(after, left - 1)[:left] & _NODE
        give[last] += 1
        order = _deal(at, self._rank[at] >> NODE_BITS, level, give)
        self._take(at, give, group)
        return order

    def _room(self, at: Numbers, level: Numbers, group: Group) -> Numbers:
        room = NODE_REPLICAS_MAX - self._replicas[at]
        for want, left in zip(group.reserve, (self._cpus, self._memory, self._pids), strict=True):
            if want:
                room = np.minimum(room, left[at] // want)
        return np.clip(np.minimum(room, group.max_per_node - level), 0, None) if group.max_per_node else room

    def _take(self, at: Numbers, give: Numbers | int, group: Group) -> None:
        self._replicas[at] += give
        for want, left in zip(group.reserve, (self._cpus, self._memory, self._pids), strict=True):
            if want:
                left[at] -= want * give
        self._rank[at] = self._ranked(at)

    def _ranked(self, at: Numbers, give: Numbers | int = 0, group: Group | None = None) -> Numbers:
        """The ranks of these nodes; after so many replicas of the group each."""
        cpus, memory = self._cpus[at], self._memory[at]
        if group is not None:
            cpus, memory = cpus - give * group.reserve.cpus, memory - give * group.reserve.memory
        share = np.minimum(cpus * SHARE // self._of_cpus[at], memory * SHARE // self._of_memory[at])
        ranks: Numbers = ((self._replicas[at] + give << SHARE_BITS) + _EVEN - share << NODE_BITS) + at
        return ranks


def _column(values: list[int]) -> Numbers:
    return np.array(values, dtype=np.int64)


def _water_level(level: Numbers, room: Numbers, count: int) -> int:
    """The highest level up to which all nodes can be filled with `count` replicas."""
    low, high = (int(level.min()), int((level + room).max())) if len(level) else (0, 0)
    while low < high:
        middle = (low + high + 1) // 2
        if int(np.clip(np.minimum(room, middle - level), 0, None).sum()) <= count:
            low = middle
        else:
            high = middle - 1
    return low


def _deal(at: Numbers, rank: Numbers, level: Numbers, give: Numbers) -> Numbers:
    """The nodes in rounds, lowest level first, so that neighbouring slots stand on different nodes."""
    end = level + give
    by_rank = np.lexsort((-end, level, rank))
    at, level, end = at[by_rank], level[by_rank], end[by_rank]
    rounds = range(int(level.min()), int(end.max())) if len(at) else range(0)
    return np.concatenate([at[:0], *(at[(level <= k) & (k < end)] for k in rounds)])
