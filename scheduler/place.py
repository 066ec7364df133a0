"""Placement of a batch of groups, one after the other, on one account.

Rules: pure; the same cluster and groups give the same answer. A group is placed as far as it goes; the rest is refused with
one reason. Local volumes bind: the first placement chooses the node, every later replica goes there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scheduler.branches import spread_over_labels
from scheduler.bulk import runs
from scheduler.fill import Field
from scheduler.filters import crowded, reason, static_reason, summary
from scheduler.fit import best_fit, on_target
from scheduler.levels import Levels
from scheduler.pool import Pool
from scheduler.target import Weights, aim, by_size, packs
from scheduler.types import ClusterView, Group, Pairs, Placement, Refusal

if TYPE_CHECKING:
    from scheduler.columns import Columns


def place(cluster: ClusterView, groups: Sequence[Group]) -> Placement:
    """Where each replica of each group goes, and why not. Earlier groups are served first.

    Refusals are explained when all groups have been placed: asked again about the rest, the answer is the same.
    """
    return place_in(Pool(cluster), groups)


def place_in(pool: Pool, groups: Sequence[Group]) -> Placement:
    """The same on an account that is kept (`pool.begin` comes before, `pool.restore` behind)."""
    held = dict(pool.volumes)
    filled = fill_in(pool, groups)
    refused = [explain_in(pool, rest) if rest else None for _, rest in filled]
    return Placement(tuple(pairs for pairs, _ in filled), tuple(refused), bound_since(pool, held))


@dataclass(frozen=True, slots=True)
class Short:
    """Slots of a group that got no node; `existing` with what was placed."""

    group: Group
    slots: Sequence[int]
    existing: Mapping[int, int]


def fill_in(pool: Pool, groups: Sequence[Group]) -> list[tuple[Pairs, Short | None]]:
    """Each group as far as it goes: its pairs, and what is left of it. May be asked again in the same pass.

    Groups that pack are placed by size and on a target; when so not all have room, as they come, by best fit.
    """
    if not any(map(packs, groups)):
        return _in_order(pool, groups, range(len(groups)), None)
    order, before = by_size(pool, groups), (pool.volumes, pool.full)
    weights = aim(pool, groups)
    pool.volumes, pool.full = dict(pool.volumes), dict(pool.full)
    filled = _in_order(pool, groups, order, weights)
    pool.reunite()
    if any(rest and not rest.group.everywhere for _, rest in filled) and (weights or order != sorted(order)):
        for k in reversed(order):
            pool.take_back(Counter(map(pool.at.__getitem__, filled[k][0].nodes)), groups[k])
        pool.volumes, pool.full = before
        filled = _in_order(pool, groups, range(len(groups)), None)
    return filled


def _in_order(
    pool: Pool, groups: Sequence[Group], order: Sequence[int], weights: Weights | None
) -> list[tuple[Pairs, Short | None]]:
    """In the groups' order what each got."""
    done: dict[int, tuple[Pairs, Short | None]] = {}
    for columns, run in runs(pool, groups, order):
        for k in run:
            group = groups[k]
            done[k] = _everywhere(pool, group) if group.everywhere else _place_group(pool, group, weights, columns)
    return [done[k] for k in range(len(groups))]


def explain_in(pool: Pool, rest: Short) -> Refusal:
    """Why: asked when all groups have been placed."""
    return Refusal(tuple(rest.slots), _explain(pool, rest))


def bound_since(pool: Pool, held: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Volumes that have another place than in `held`."""
    return {name: nodes for name, nodes in pool.volumes.items() if held.get(name) != nodes}


def _everywhere(pool: Pool, group: Group) -> tuple[Pairs, Short | None]:
    """One replica on every node that passes. Only nodes that it should run on but cannot are refusals."""
    existing = Levels(pool, dict.fromkeys(group.existing, 1))
    single = replace(group, max_per_node=1)
    order = sorted(_field(pool, single, existing).fill(len(pool.nodes)))
    pairs = Pairs([0] * len(order), [pool.names[i] for i in order])
    for volume in group.volumes if order else ():
        pool.volumes[volume] = tuple(sorted({*pool.volumes.get(volume, ()), *pairs.nodes}))
    should = pool.eligible(replace(group, shun=()))
    if len(should) == len(order):
        return pairs, None
    has = {*existing.all(), *order}
    without = {i: 0 for i in should if i not in has}
    return pairs, Short(group, (0,), without) if without else None


def _place_group(
    pool: Pool, group: Group, weights: Weights | None, columns: Columns | None
) -> tuple[Pairs, Short | None]:
    """`columns`: what it is placed on, instead of the pool's classes."""
    existing = Levels(pool, group.existing)
    pinned = group
    if group.volumes:
        tied = _tie(pool, group, existing)
        if tied is None:
            return Pairs(), Short(group, group.slots, existing.all())
        pinned = tied
    preferred, slots = _take_preferred(pool, pinned, existing)
    shape = _shape(pinned)
    if slots and not pinned.max_per_node and shape in pool.full:
        return Pairs(*preferred), Short(group, slots, existing.all())
    if columns is not None:
        names = columns.fill(pinned, existing.all(), len(slots))
    else:
        names = list(map(pool.names.__getitem__, _fill(pool, pinned, existing, len(slots), weights) if slots else []))
    pairs = Pairs(slots[: len(names)], names)
    if preferred[0]:
        pairs = Pairs([*preferred[0], *pairs.slots], preferred[1] + names)
    if len(names) == len(slots):
        return pairs, None
    existing.add(map(pool.at.__getitem__, names))
    if not pinned.max_per_node:
        pool.full[shape] = ""
    return pairs, Short(group, slots[len(names) :], existing.all())


def _shape(group: Group) -> object:
    """Groups of one shape find the same nodes full."""
    return (group.constraints, group.platform, group.shun, group.node, group.reserve, group.ports, group.generic)


def _explain(pool: Pool, rest: Short) -> str:
    group, existing = rest.group, rest.existing
    if group.everywhere:
        return summary(Counter(reason(pool, i, group, 0) for i in existing))
    if group.volumes:
        return _why_tied(pool, group, existing)
    if group.max_per_node:
        return _why(pool, group, existing)
    shape = _shape(group)
    known = pool.full.get(shape, "")
    if not known:
        known = pool.full[shape] = _why(pool, group, existing)
    return known


def _fill(pool: Pool, group: Group, existing: Levels, count: int, weights: Weights | None) -> list[int]:
    if group.strategy == "pack":
        return _pack(pool, group, existing, count, weights)
    return spread_over_labels(pool, group, existing, count) if group.spread else _field(pool, group, existing).fill(count)


def _pack(pool: Pool, group: Group, existing: Levels, count: int, weights: Weights | None) -> list[int]:
    """On the target first."""
    order: list[int] = []
    if weights:
        kinds, named = pool.kinds_for(group) & pool.targets.keys(), pool.named(group)
        some = None if named is None else [i for i in named if pool.where[i].kind in kinds]
        order = on_target(Field(pool, group, existing, kinds, some), count, weights)
    if len(order) < count:
        have = existing.copy()
        have.add(order)
        order += best_fit(_field(pool, group, have), count - len(order))
    return order


def _field(pool: Pool, group: Group, existing: Levels) -> Field:
    return Field(pool, group, existing, pool.kinds_for(group), pool.named(group))


def _take_preferred(pool: Pool, group: Group, existing: Levels) -> tuple[tuple[list[int], list[str]], Sequence[int]]:
    """The slots whose preferred node passes with these nodes, and the other slots."""
    slots: list[int] = []
    nodes: list[str] = []
    if not any(group.prefer):
        return (slots, nodes), group.slots
    others: list[int] = []
    for slot, name in zip(group.slots, group.prefer, strict=True):
        i = pool.at.get(name, -1)
        if i >= 0 and not reason(pool, i, group, existing.of(i)):
            pool.take_one(i, group)
            existing.add((i,))
            slots.append(slot)
            nodes.append(name)
        else:
            others.append(slot)
    return (slots, nodes), others


def _held(pool: Pool, group: Group) -> tuple[list[tuple[str, tuple[str, ...]]], list[str]]:
    """The group's volumes that have a node, and the nodes that hold all of these."""
    held = [(name, pool.volumes[name]) for name in group.volumes if pool.volumes.get(name)]
    return held, [node for node in held[0][1] if all(node in nodes for _, nodes in held)] if held else []


def _tie(pool: Pool, group: Group, existing: Levels) -> Group | None:
    """The group pinned to the node of its volumes (chosen now when they have none yet); None when there is no such node."""
    held, common = _held(pool, group)
    choices = [pool.at[node] for node in common if node in pool.at] if held else pool.eligible(group)
    fit = [i for i in choices if not reason(pool, i, group, existing.of(i))]
    if not fit:
        return None
    if len(common) > 1 and len(held) == len(group.volumes):  # copies of a global service's volume: any of them will do
        others = frozenset(node.name for node in pool.nodes) - frozenset(common)
        return replace(group, shun=(*group.shun, ("volume is elsewhere", others)))
    best = min(fit, key=lambda i: _tie_rank(pool, group, existing, i))
    name = pool.nodes[best].name
    for volume in group.volumes:
        if not pool.volumes.get(volume):
            pool.volumes[volume] = (name,)
    return replace(group, node=name)


def _tie_rank(pool: Pool, group: Group, existing: Levels, i: int) -> tuple[int, ...]:
    have = existing.of(i)
    preferred = bool(group.prefer) and group.prefer[0] == pool.nodes[i].name
    return (-min(pool.room_on(i, group, have), len(group.slots)), not preferred, -have, *pool.rank(i))


def _why_tied(pool: Pool, group: Group, existing: Mapping[int, int]) -> str:
    held, common = _held(pool, group)
    if not held:
        return _why(pool, group, existing)
    if not common:
        places = [f"{name} {'on' if number else 'is on'} {' and '.join(nodes)}" for number, (name, nodes) in enumerate(held)]
        return "volume " + ", volume ".join(places)
    if len(common) > 1:
        numbers = [pool.at[node] for node in common if node in pool.at]
        why = summary(Counter(reason(pool, i, group, existing.get(i, 0)) for i in numbers))
        return f"volume {held[0][0]} is on {' and '.join(common)}: {why}"
    i = pool.at.get(common[0])
    if i is None:
        return f"volume {held[0][0]} is on {common[0]}, which is removed"
    phrase = reason(pool, i, group, existing.get(i, 0))
    link = ", which has " if phrase.startswith("not enough") else ", which is " if " " not in phrase else ": "
    return f"volume {held[0][0]} is on {pool.nodes[i].name}{link}{phrase}"


def _why(pool: Pool, group: Group, existing: Mapping[int, int]) -> str:
    if not pool.nodes:
        return "there is no node"
    if group.node:
        i = pool.at.get(group.node)
        if i is None:
            return f"node {group.node} does not exist"
        return f"node {group.node}: {reason(pool, i, group, existing.get(i, 0))}"
    if group.max_per_node or group.ports or group.shun or pool.named(group) is not None:
        return summary(Counter(reason(pool, i, group, existing.get(i, 0)) for i in range(len(pool.nodes))))
    counts: Counter[str] = Counter()
    static = [static_reason(node, group) for node in pool.kinds]
    for alike in pool.classes():
        counts[static[alike.kind] or crowded(alike, group)] += alike.size
    return summary(counts)
