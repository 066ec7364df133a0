"""Many replicas at once: spread by water level, or packed by best fit.

Rules: the number each node gets is exactly what placing one replica after the other would give (tests hold that greedy as
the oracle). Spread: fewest replicas of the service, then fewest in all, then the most free share, then name. Pack: the
least free share that still has room, then most replicas, then name.
"""

from __future__ import annotations

import heapq

from scheduler.pool import Pool
from scheduler.types import Group


def spread(pool: Pool, group: Group, existing: dict[int, int], count: int) -> list[int]:
    """Nodes for up to `count` replicas, in slot order; shorter when there is no more room. Takes them from the pool."""
    if count * 4 < len(pool.eligible(group)):
        few = _spread_few(pool, group, existing, count)
        if few is not None:
            return few
    return _spread_many(pool, group, existing, count)


def _spread_few(pool: Pool, group: Group, existing: dict[int, int], count: int) -> list[int] | None:
    """The best nodes that have no replica of the service yet; None when there are not enough (then levels decide)."""
    heap = pool.heap(group)
    picked: list[int] = []
    aside: list[tuple[int, int, int]] = []
    while heap and len(picked) < count:
        entry = heap[0]
        i = entry[2]
        now = pool.rank(i)
        if now != entry:
            heapq.heapreplace(heap, now)
            continue
        heapq.heappop(heap)
        if i in existing or not pool.room(i, group, 0):
            aside.append(entry)
        else:
            picked.append(i)
    enough = len(picked) == count
    for entry in aside:
        heapq.heappush(heap, entry)
    for i in picked:
        if enough:
            pool.take(i, group)
        heapq.heappush(heap, pool.rank(i))
    return picked if enough else None


def _spread_many(pool: Pool, group: Group, existing: dict[int, int], count: int) -> list[int]:
    level = {i: existing.get(i, 0) for i in pool.eligible(group)}
    room = {i: min(pool.room(i, group, have), count) for i, have in level.items()}
    nodes = sorted((i for i in level if room[i] > 0), key=pool.rank)
    if not nodes:
        return []
    give = {i: room[i] for i in nodes}
    if sum(give.values()) > count:
        top = _water_level([(level[i], room[i]) for i in nodes], count)
        give = {i: min(room[i], max(0, top - level[i])) for i in nodes}
    for i in nodes:
        pool.take(i, group, give[i])
    left = min(count, sum(room[i] for i in nodes)) - sum(give.values())
    if left:
        last = [i for i in nodes if give[i] < room[i] and level[i] + give[i] == top]
        for i in heapq.nsmallest(left, last, key=pool.rank):
            pool.take(i, group)
            give[i] += 1
    return _deal(nodes, level, give)


def _water_level(rows: list[tuple[int, int]], count: int) -> int:
    """The highest level up to which all nodes (level, room) can be filled with `count` replicas; they have more room."""
    low, high = min(have for have, _ in rows), max(have for have, _ in rows) + count
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(room, middle - have) for have, room in rows if have < middle) <= count:
            low = middle
        else:
            high = middle - 1
    return low


def _deal(nodes: list[int], level: dict[int, int], give: dict[int, int]) -> list[int]:
    """The nodes in rounds, lowest level first, so that neighbouring slots stand on different nodes."""
    waiting = sorted((i for i in nodes if give[i]), key=lambda i: level[i])
    waiting.reverse()
    ends = {i: level[i] + give[i] for i in nodes}
    active: list[int] = []
    order: list[int] = []
    at = 0
    while active or waiting:
        if not active:
            at = level[waiting[-1]]
        while waiting and level[waiting[-1]] == at:
            active.append(waiting.pop())
        order += active
        at += 1
        active = [i for i in active if ends[i] > at]
    return order


def pack(pool: Pool, group: Group, existing: dict[int, int], count: int) -> list[int]:
    """Nodes for up to `count` replicas: one node after the other is filled, the fullest first."""
    order: list[int] = []
    for i in sorted(pool.eligible(group), key=lambda i: (pool.share(i), -pool.replicas[i], i)):
        if len(order) == count:
            break
        fits = min(pool.room(i, group, existing.get(i, 0)), count - len(order))
        if fits:
            pool.take(i, group, fits)
            order += [i] * fits
    return order
