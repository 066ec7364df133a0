"""Many replicas at once, spread by water level, class by class.

Rules: the number each node gets is exactly what placing one replica after the other would give (tests hold that greedy as
the oracle): fewest replicas of the service, then fewest in all, then the most free share, then name. Slots go round the
nodes in this order too, so that neighbouring slots stand on different nodes, and so that the answer does not depend on how
the classes came about.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple

from scheduler.levels import Levels
from scheduler.pool import Part, Pool
from scheduler.shelves import Alike, Entry
from scheduler.types import NODE_REPLICAS_MAX, Group

Best = tuple[int, ...]
_FEW: Final = 16
"""So many nodes of a class are always asked one by one whether they are apart; more, when about so many are apart."""


class Row(NamedTuple):
    """Nodes of one class that have the same number of the service's replicas. `some` None: the whole class."""

    replicas: int
    minus_share: int
    level: int
    room: int
    size: int
    alike: Alike
    some: list[int] | None


class Block(NamedTuple):
    """Nodes of one rank that have `level` replicas of the service and get so many that they have `end`."""

    replicas: int
    minus_share: int
    level: int
    minus_end: int
    nodes: list[int]


Rank = Callable[[Row, int], tuple[int, ...]]
"""Of the nodes of a row, when each of them got so many: the smallest get what is left."""


class Field:
    """The nodes that one group may use (those of `kinds`, or only the `named` ones), and how many of its service each has."""

    def __init__(
        self, pool: Pool, group: Group, levels: Levels, kinds: Collection[int], named: list[int] | None
    ) -> None:
        self.pool, self.group, self.levels, self.kinds = pool, group, levels, kinds
        self.out = pool.shunned(group) | pool.ports.clashing(group.ports)
        self.named = None if named is None else [i for i in named if i not in self.out]
        self._had: dict[int, int] | None = None
        self._apart = self.out
        """No fresh nodes: also those of `had`, when they have been asked for."""

    def had(self) -> dict[int, int]:
        """Its nodes that have some of the service."""
        if self._had is None:
            allowed = None if self.named is None else set(self.named)
            out, where, kinds = self.out, self.pool.where, self.kinds
            self._had = {
                i: have for i, have in self.levels.all().items()
                if i not in out and (where[i].kind in kinds if allowed is None else i in allowed)
            }  # fmt: skip
            self._apart = out | self._had.keys()
        return self._had

    def rows(self) -> list[Row]:
        """All nodes that have room."""
        return [*self._fresh(), *self._grouped(self.had().items())]

    def capacity(self) -> int:
        return sum(row.size * row.room for row in self.rows())

    def best(self) -> Best | None:
        """What the next replica would be: its level, and the rank of its node."""
        first: list[Row] = []
        for row in self._fresh():
            if first and row[:2] != first[0][:2]:
                break
            first.append(row)
        if first:
            at = min(row.some[0] if row.some else self.pool.first_of(row.alike, 1, ())[0] for row in first)
            return (0, first[0].replicas, first[0].minus_share, at)
        rows = self._grouped(self.had().items())
        return min(((row.level, row.replicas, row.minus_share, row.some[0]) for row in rows if row.some), default=None)

    def fill(self, count: int, *, again: bool = False) -> list[int]:
        """Nodes for up to `count` replicas, in slot order; shorter when there is no more room. Takes them from the pool.
        `again`: more will be asked."""
        if not count:
            return []
        rows: list[Row]
        if not self.out and not self.levels and self.named is None and not again and not self.group.ports:
            firsts, left = self._firsts(count)
            if left <= 0:
                return self._one_each(firsts, count)
            rows = [Row(-entry[0], -entry[1], 0, self._room(entry[3], 0), entry[3].size, entry[3], None) for entry in firsts]
            return self.give(rows, water_level(rows, count), count, self._rank_after)
        rows = []
        left = count
        for row in self._fresh():
            if left <= 0 and row[:2] != rows[-1][:2]:
                break
            rows.append(row)
            left -= row.size
        if left > 0:
            rows += self._grouped(self.had().items())
        return self.give(rows, water_level(rows, count) if left > 0 else 0, count, self._rank_after, again=again)

    def _firsts(self, count: int) -> tuple[list[Entry], int]:
        """The classes of the first ranks that have `count` nodes together, and how many are missing (0 or less: none)."""
        firsts: list[Entry] = []
        left, minus_replicas, share = count, 1, 0
        for entry in self.pool.shelves.walk(self.group.reserve, self.kinds):
            if left <= 0 and (entry[0] != minus_replicas or entry[1] != share):
                break
            minus_replicas, share, _, alike = entry
            firsts.append(entry)
            left -= alike.size
        return firsts, left

    def _one_each(self, entries: list[Entry], count: int) -> list[int]:
        """The plain case, nearly every time: one replica for each node of these classes, the last rank by name."""
        order: list[int] = []
        parts: list[Part] = []
        pool = self.pool
        for _, equal in groupby(entries, itemgetter(0, 1)):
            bucket = [entry[3] for entry in equal]
            left = count - len(order)
            if sum(alike.size for alike in bucket) > left:
                found = sorted((i, k) for k, alike in enumerate(bucket) for i in pool.first_of(alike, left, ()))[:left]
                some: list[list[int]] = [[] for _ in bucket]
                for i, k in found:
                    some[k].append(i)
                order += [i for i, _ in found]
                parts += [(alike, nodes, 1) for alike, nodes in zip(bucket, some, strict=True) if nodes]
            else:
                whole = [i for alike in bucket for i in pool.all_of(alike)]
                order += whole if len(bucket) == 1 else sorted(whole)
                parts += [(alike, None, 1) for alike in bucket]
        pool.take(parts, self.group)
        return order

    def give(self, rows: list[Row], top: int, count: int, rank: Rank, *, again: bool = False) -> list[int]:
        """Take `count` replicas from the pool: all nodes up to the level `top`, what is left by rank, one more for each."""
        blocks, parts = self._cut(rows, self._gives(rows, top, count, rank))
        order = _deal(blocks)
        if again:
            for block in blocks:
                self.had().update(dict.fromkeys(block.nodes, -block.minus_end))
            self._apart = self._apart | self.had().keys()
        self.pool.take(parts, self.group)
        return order

    def _gives(self, rows: list[Row], top: int, count: int, rank: Rank) -> list[tuple[int, list[int]]]:
        """For each row how many replicas its nodes get, and the nodes that get one more."""
        gives = [min(row.room, top - row.level) if top > row.level else 0 for row in rows]
        left = count - sum(row.size * give for row, give in zip(rows, gives, strict=True))
        more: list[list[int]] = [[] for _ in rows]
        last = [k for k, row in enumerate(rows) if row.level + gives[k] == top and gives[k] < row.room] if left else []
        ranks = sorted((rank(rows[k], gives[k]), k) for k in last)
        for _, bucket in groupby(ranks, itemgetter(0)):
            numbers = [k for _, k in bucket]
            size = sum(rows[k].size for k in numbers)
            if size <= left:
                for number in numbers:
                    more[number] = self.nodes(rows[number])
            else:
                first = sorted((i, number) for number in numbers for i in self.nodes(rows[number], left))
                for i, number in first[:left]:
                    more[number].append(i)
            left -= min(left, size)
            if not left:
                break
        return list(zip(gives, more, strict=True))

    def _rank_after(self, row: Row, give: int) -> tuple[int, int]:
        return (row.replicas + give, -self.pool.share(row.alike, give, self.group) if give else row.minus_share)

    def nodes(self, row: Row, first: int = 0) -> list[int]:
        if row.some is not None:
            return row.some[:first] if first else row.some
        return self.pool.first_of(row.alike, first, ()) if first else self.pool.all_of(row.alike)

    def _cut(self, rows: list[Row], gives: list[tuple[int, list[int]]]) -> tuple[list[Block], list[Part]]:
        blocks: list[Block] = []
        parts: list[Part] = []
        for row, (give, more) in zip(rows, gives, strict=True):
            rest: list[int] = []
            if give and len(more) < row.size:
                chosen = set(more)
                rest = [i for i in self.nodes(row) if i not in chosen] if more else self.nodes(row)
            for nodes, each in ((more, give + 1), (rest, give)):
                if nodes:
                    blocks.append(Block(row.replicas, row.minus_share, row.level, -row.level - each, nodes))
                    parts.append((row.alike, nodes, each))
        return blocks, parts

    def _room(self, alike: Alike, level: int) -> int:
        room = self.pool.room(alike, self.group)
        if self.group.max_per_node:
            room = max(min(room, self.group.max_per_node - level), 0)
        return min(room, 1) if self.group.ports else room

    def _fresh(self) -> Iterator[Row]:
        """Nodes without a replica of the service, in rank order."""
        if self.named is not None:
            had = self.had()
            yield from sorted(self._grouped((i, 0) for i in self.named if i not in had), key=itemgetter(0, 1))
            return
        by_class: dict[Alike, set[int]] | None = None
        for minus_replicas, share, _, alike in self.pool.shelves.walk(self.group.reserve, self.kinds):
            some: list[int] | None = None
            if not self.out and not self.levels and self._had is None:
                pass
            elif alike.size <= _FEW or alike.size <= 4 * (len(self.out) + len(self.had())):
                some = self._free(alike)
            else:
                by_class = self._by_class() if by_class is None else by_class
                without = by_class.get(alike)
                some = [i for i in self.pool.all_of(alike) if i not in without] if without else None
            size = alike.size if some is None else len(some)
            if size:
                yield Row(-minus_replicas, -share, 0, self._room(alike, 0), size, alike, some)

    def _free(self, alike: Alike) -> list[int]:
        """Its nodes that are not apart."""
        members = self.pool.all_of(alike)
        if self._had is not None:
            return [i for i in members if i not in self._apart]
        return [i for i in members if i not in self.out and not self.levels.of(i)]

    def _by_class(self) -> dict[Alike, set[int]]:
        """The nodes that are apart."""
        found: dict[Alike, set[int]] = {}
        for i in self._apart:
            found.setdefault(self.pool.where[i], set()).add(i)
        return found

    def _grouped(self, rows: Iterable[tuple[int, int]]) -> list[Row]:
        """(node, level) pairs as rows, those without room left out."""
        together: dict[tuple[int, int, Alike], list[int]] = {}
        pool, generic, most = self.pool, self.group.generic, NODE_REPLICAS_MAX
        for i, level in rows:
            if generic:
                most = pool.stock.room(pool.nodes[i], generic)
            together.setdefault((level, most, pool.where[i]), []).append(i)
        found = []
        for (level, most, alike), some in together.items():
            room = min(self._room(alike, level), most)
            if room:
                found.append(Row(alike.replicas, -alike.entry[1], level, room, len(some), alike, sorted(some)))
        return found


def water_level(rows: list[Row], count: int) -> int:
    """The highest level up to which all nodes can be filled with `count` replicas."""
    low = min((row.level for row in rows), default=0)
    high = max((row.level + row.room for row in rows), default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(row.size * min(row.room, middle - row.level) for row in rows if row.level < middle) <= count:
            low = middle
        else:
            high = middle - 1
    return low


def _deal(blocks: list[Block]) -> list[int]:
    """The nodes in rounds, lowest level first, so that neighbouring slots stand on different nodes."""
    rounds: list[tuple[int, int, list[int]]] = []
    blocks.sort(key=itemgetter(0, 1, 2, 3))
    for (_, _, level, minus_end), equal in groupby(blocks, itemgetter(0, 1, 2, 3)):
        lists = [block.nodes for block in equal]
        rounds.append((level, -minus_end, lists[0] if len(lists) == 1 else sorted(i for nodes in lists for i in nodes)))
    order: list[int] = []
    for at in range(min((row[0] for row in rounds), default=0), max((row[1] for row in rounds), default=0)):
        for level, end, nodes in rounds:
            if level <= at < end:
                order += nodes
    return order
