"""Spread preferences: replicas are spread over label values first (several, nested), then over the nodes below each value.

Rules: each step takes the node with the smallest (replicas in its outermost branch, ..., replicas of the service on the
node, rank). Nodes without the label are a branch of their own. A branch that is full is passed over.
"""

from __future__ import annotations

import heapq

from model.constraints import value_of
from scheduler.pool import Pool
from scheduler.types import Group

Best = tuple[int, ...]


class Leaf:
    """The nodes below one chain of label values."""

    def __init__(self, pool: Pool, group: Group, existing: dict[int, int], nodes: list[int], members: list[int]) -> None:
        self.pool, self.group = pool, group
        self.count: int = sum(existing.get(i, 0) for i in members)
        self.have = {i: existing.get(i, 0) for i in nodes}
        self.heap = [(self.have[i], *pool.rank(i)) for i in nodes if pool.room(i, group, self.have[i])]
        heapq.heapify(self.heap)

    def best(self) -> Best | None:
        return self.heap[0] if self.heap else None

    def take(self) -> int:
        i = heapq.heappop(self.heap)[-1]
        self.pool.take(i, self.group)
        self.have[i] += 1
        self.count += 1
        if self.pool.room(i, self.group, self.have[i]):
            heapq.heappush(self.heap, (self.have[i], *self.pool.rank(i)))
        return i


class Fork:
    """One preference: a child for each label value, the best child first."""

    def __init__(self, children: list[Fork | Leaf]) -> None:
        self.count: int = sum(child.count for child in children)
        self.heap: list[tuple[Best, int]] = []
        self.children = children
        for number in range(len(children)):
            self._push(number)

    def _push(self, number: int) -> None:
        child = self.children[number]
        best = child.best()
        if best is not None:
            heapq.heappush(self.heap, ((child.count, *best), number))

    def best(self) -> Best | None:
        return self.heap[0][0] if self.heap else None

    def take(self) -> int:
        _, number = heapq.heappop(self.heap)
        i = self.children[number].take()
        self.count += 1
        self._push(number)
        return i


def spread_over_labels(pool: Pool, group: Group, existing: dict[int, int], count: int) -> list[int]:
    """Nodes for up to `count` replicas, in slot order. Takes them from the pool."""
    eligible = set(pool.eligible(group))
    tree = _grow(pool, group, existing, list(range(len(pool.nodes))), eligible, 0)
    order: list[int] = []
    while len(order) < count and tree.best() is not None:
        order.append(tree.take())
    return order


def _grow(
    pool: Pool, group: Group, existing: dict[int, int], members: list[int], eligible: set[int], depth: int
) -> Fork | Leaf:
    if depth == len(group.spread):
        return Leaf(pool, group, existing, [i for i in members if i in eligible], members)
    by_value: dict[str, list[int]] = {}
    for i in members:
        by_value.setdefault(value_of(group.spread[depth], pool.nodes[i]), []).append(i)
    return Fork([_grow(pool, group, existing, by_value[value], eligible, depth + 1) for value in sorted(by_value)])
