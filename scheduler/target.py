"""What a batch that packs aims at: as few nodes as could hold it, chosen before its first replica is placed.

Rules: best fit, one service after the other, fills nodes up with whatever comes first, and what is left of them is of the
wrong mix for what comes later. So nodes are chosen first: the fullest ones that together have what is asked for; where only
some nodes pass, from these, the narrowest demand first. Where all groups of a batch ask for the same, nothing is won, and
there is no target. It only guides: what finds no room in it goes where best fit puts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from scheduler.filters import BY_NAME
from scheduler.pool import Pool
from scheduler.shelves import Alike
from scheduler.types import Amounts, Group

Has = Alike | Amounts


class Weights(NamedTuple):
    """What a millionth of a core and a byte are worth: so that all cpus the target has left weigh as much as all its memory."""

    cpus: int
    memory: int


def packs(group: Group) -> bool:
    return group.strategy == "pack" and not group.everywhere


def by_size(pool: Pool, groups: Sequence[Group]) -> list[int]:
    """The order in which to place them: those that pack the largest first, in the places of those that pack."""
    order = list(range(len(groups)))
    places = [k for k in order if packs(groups[k])]
    if len(places) > 1:
        cpus, memory = _sum((pool.kinds[alike.kind].total, alike.size) for alike in pool.classes())
        size = [max(group.reserve.cpus * memory, group.reserve.memory * cpus) for group in groups]
        for place, k in zip(places, sorted(places, key=lambda k: -size[k]), strict=True):
            order[place] = k
    return order


def aim(pool: Pool, groups: Sequence[Group]) -> Weights | None:
    """Set the target apart in the pool, and what cpus and memory are worth in it. None: there is none."""
    asking = [group for group in groups if packs(group) and group.slots and (group.reserve.cpus or group.reserve.memory)]
    if len({group.reserve for group in asking}) < 2:
        return None
    sizes: dict[int, int] = {}
    for alike in pool.classes():
        sizes[alike.kind] = sizes.get(alike.kind, 0) + alike.size
    demands: dict[frozenset[int], list[Group]] = {}
    for group in asking:
        if not group.node and not group.generic and not any(constraint.key in BY_NAME for constraint in group.constraints):
            demands.setdefault(frozenset(pool.kinds_for(group) & sizes.keys()), []).append(group)
    for kinds in sorted(demands, key=lambda kinds: sum(sizes[kind] for kind in kinds)):
        within = [group for some, groups in demands.items() if some <= kinds for group in groups]
        _cover(pool, kinds, *_sum((group.reserve, len(group.slots)) for group in within))
    cpus, memory = _sum((alike, alike.size) for alike in pool.classes() if alike.kind in pool.targets)
    return Weights(max(memory, 1) ** 2, max(cpus, 1) ** 2)


def _cover(pool: Pool, kinds: frozenset[int], cpus: int, memory: int) -> None:
    """Set apart so many nodes of these kinds, the fullest first, that the target has these amounts."""
    classes = [alike for alike in pool.classes() if pool.targets.get(alike.kind, alike.kind) in kinds]
    has_cpus, has_memory = _sum((alike, alike.size) for alike in classes if alike.kind in pool.targets)
    cpus, memory = cpus - has_cpus, memory - has_memory
    rest = [(alike.entry[1], -alike.replicas, k) for k, alike in enumerate(classes) if alike.kind not in pool.targets]
    for _, equal in groupby(sorted(rest), itemgetter(0, 1)):
        if cpus <= 0 and memory <= 0:
            return
        bucket = [classes[k] for _, _, k in equal]
        has_cpus, has_memory = _sum((alike, alike.size) for alike in bucket)
        some = None if has_cpus < cpus or has_memory < memory else _first(pool, bucket, cpus, memory)
        for at, alike in enumerate(bucket):
            if some is None or some[at]:
                pool.set_apart(alike, some[at] if some else None)
        cpus, memory = cpus - has_cpus, memory - has_memory


def _first(pool: Pool, bucket: list[Alike], cpus: int, memory: int) -> list[list[int]]:
    """Of each class the nodes that are needed, when these are taken by name."""
    found: list[list[int]] = [[] for _ in bucket]
    most = [max(_times(cpus, alike.cpus, alike.size), _times(memory, alike.memory, alike.size)) for alike in bucket]
    for i, k in sorted((i, at) for at, alike in enumerate(bucket) for i in pool.first_of(alike, most[at], ())):
        if cpus <= 0 and memory <= 0:
            break
        cpus, memory = cpus - max(bucket[k].cpus, 0), memory - max(bucket[k].memory, 0)
        found[k].append(i)
    return found


def _times(missing: int, each: int, most: int) -> int:
    return 0 if missing <= 0 else min(-(-missing // each), most) if each > 0 else most


def _sum(rows: Iterable[tuple[Has, int]]) -> tuple[int, int]:
    """Cpus and memory of so many of each."""
    cpus = memory = 0
    for has, count in rows:
        cpus += max(has.cpus, 0) * count
        memory += max(has.memory, 0) * count
    return cpus, memory
