"""Spread preferences: replicas are spread over label values first (several, nested), then over the nodes below each value.

Rules: as if each step took the node with the smallest (replicas in its outermost branch, ..., replicas of the service on the
node, rank). Nodes without the label are a branch of their own. A branch that is full is passed over. Branches are filled to
a common level at once; only what is left after that is given one by one.
"""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest

from model.constraints import value_of
from scheduler.fill import Best, Field
from scheduler.filters import BY_NAME
from scheduler.levels import Levels
from scheduler.pool import Pool
from scheduler.types import Group, NodeFacts


class Leaf:
    """The nodes below one chain of label values."""

    def __init__(self, field: Field, count: int) -> None:
        self.field, self.count, self.room = field, count, field.capacity()

    def best(self) -> Best | None:
        return self.field.best()

    def fill(self, count: int) -> list[int]:
        order = self.field.fill(count, again=True)
        self.count += len(order)
        self.room -= len(order)
        return order


class Fork:
    """One preference: a child for each label value, the emptiest child first."""

    def __init__(self, children: list[Fork | Leaf], count: int) -> None:
        self.children, self.count = children, count
        self.room: int = sum(child.room for child in children)

    def best(self) -> Best | None:
        found = [(child.count, *best) for child in self.children if child.room and (best := child.best()) is not None]
        return min(found, default=None)

    def fill(self, count: int) -> list[int]:
        count = min(count, self.room)
        top = self._level(count)
        orders = [child.fill(min(child.room, top - child.count) if top > child.count else 0) for child in self.children]
        left = count - sum(map(len, orders))
        last = [child for child in self.children if child.room and child.count == top] if left else []
        ranked = sorted((best, k) for k, child in enumerate(last) if (best := child.best()) is not None)
        orders += [last[k].fill(1) for _, k in ranked[:left]]
        self.count += count
        self.room -= count
        return [i for row in zip_longest(*orders) for i in row if i is not None]

    def _level(self, count: int) -> int:
        low = min(child.count for child in self.children)
        high = max(child.count + child.room for child in self.children)
        while low < high:
            middle = (low + high + 1) // 2
            if sum(min(child.room, middle - child.count) for child in self.children if child.count < middle) <= count:
                low = middle
            else:
                high = middle - 1
        return low


Chain = tuple[str, ...]
"""The values of one branch, outermost first."""


def spread_over_labels(pool: Pool, group: Group, existing: Levels, count: int) -> list[int]:
    """Nodes for up to `count` replicas, in slot order. Takes them from the pool."""
    named, kinds = pool.named(group), pool.kinds_for(group)
    by_name = named is not None or any(key in BY_NAME for key in group.spread)
    if by_name and named is None:
        named = pool.eligible(group)
    have: Counter[Chain] = Counter()
    for i, number in existing.all().items():
        have[_chain(group, pool.nodes[i] if by_name else pool.kinds[pool.where[i].kind])] += number
    below: dict[Chain, list[int]] = {}
    for number in named if named is not None else sorted(kinds):
        below.setdefault(_chain(group, pool.nodes[number] if by_name else pool.kinds[number]), []).append(number)
    leaves = {
        chain: Leaf(Field(pool, group, existing, kinds if by_name else set(some), some if by_name else None), have[chain])
        for chain, some in below.items()
    }
    return _grow(leaves, have, (), len(group.spread)).fill(count) if leaves else []


def _chain(group: Group, node: NodeFacts) -> Chain:
    return tuple(value_of(key, node) for key in group.spread)


def _grow(leaves: dict[Chain, Leaf], have: Counter[Chain], head: Chain, depth: int) -> Fork | Leaf:
    if len(head) == depth:
        return leaves[head]
    values = sorted({chain[len(head)] for chain in leaves if chain[: len(head)] == head})
    count = sum(number for chain, number in have.items() if chain[: len(head)] == head)
    return Fork([_grow(leaves, have, (*head, value), depth) for value in values], count)
