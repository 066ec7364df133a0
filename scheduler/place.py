"""Placement of a batch of groups, one after the other, on one account.

Rules: pure; the same cluster and groups give the same answer. A group is placed as far as it goes; the rest is refused with
one reason. Local volumes bind: the first placement chooses the node, every later replica goes there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scheduler.branches import spread_over_labels
from scheduler.fill import pack, spread
from scheduler.filters import reason, static_reason, summary
from scheduler.pool import Pool, demand_of
from scheduler.types import ClusterView, Group, Placement, Refusal

Pair = tuple[int, str]


def place(cluster: ClusterView, groups: Sequence[Group]) -> Placement:
    """Where each replica of each group goes, and why not. Earlier groups are served first.

    Refusals are explained when all groups have been placed: asked again about the rest, the answer is the same.
    """
    pool = Pool(cluster)
    assigned: list[tuple[Pair, ...]] = []
    short: list[_Short | None] = []
    for group in groups:
        pairs, rest = _everywhere(pool, group) if group.everywhere else _place_group(pool, group)
        assigned.append(tuple(pairs))
        short.append(rest)
    refused = [Refusal(tuple(rest.slots), _explain(pool, rest)) if rest else None for rest in short]
    bound = {name: nodes for name, nodes in pool.volumes.items() if cluster.volumes.get(name) != nodes}
    return Placement(tuple(assigned), tuple(refused), bound)


@dataclass(frozen=True, slots=True)
class _Short:
    """Slots of a group that got no node; `existing` with what was placed."""

    group: Group
    slots: Sequence[int]
    existing: Mapping[int, int]


def _everywhere(pool: Pool, group: Group) -> tuple[list[Pair], _Short | None]:
    """One replica on every node that passes. Only nodes that it should run on but cannot are refusals."""
    pairs: list[Pair] = []
    without: dict[int, int] = {}
    for i in pool.eligible(group):
        name = pool.nodes[i].name
        if name in group.existing:
            continue
        if pool.room(i, group, 0):
            pool.take(i, group)
            pairs.append((0, name))
            for volume in group.volumes:
                pool.volumes[volume] = tuple(sorted({*pool.volumes.get(volume, ()), name}))
        else:
            without[i] = 0
    if group.shun:
        open_to_all = replace(group, shun=())
        shunned = [i for i in pool.eligible(open_to_all) if pool.nodes[i].name not in group.existing]
        without.update(dict.fromkeys((i for i in shunned if static_reason(pool.nodes[i], group)), 0))
    return pairs, _Short(group, (0,), without) if without else None


def _place_group(pool: Pool, group: Group) -> tuple[list[Pair], _Short | None]:
    existing = {pool.at[name]: count for name, count in group.existing.items() if count and name in pool.at}
    pinned = group
    if group.volumes:
        tied = _tie(pool, group, existing)
        if tied is None:
            return [], _Short(group, group.slots, existing)
        pinned = tied
    pairs, slots = _take_preferred(pool, pinned, existing)
    shape = _shape(pinned)
    if slots and not pinned.max_per_node and shape in pool.full:
        return pairs, _Short(group, slots, existing)
    order = _fill(pool, pinned, existing, len(slots)) if slots else []
    nodes = pool.nodes
    pairs += [(slot, nodes[i].name) for slot, i in zip(slots, order, strict=False)]
    if len(order) == len(slots):
        return pairs, None
    for i in order:
        existing[i] = existing.get(i, 0) + 1
    if not pinned.max_per_node:
        pool.full[shape] = ""
    return pairs, _Short(group, slots[len(order) :], existing)


def _shape(group: Group) -> object:
    """Groups of one shape find the same nodes full."""
    return (demand_of(group), group.node, group.reserve, group.ports)


def _explain(pool: Pool, rest: _Short) -> str:
    group, existing = rest.group, rest.existing
    if group.everywhere:
        return summary(reason(pool, i, group, 0) for i in existing)
    if group.volumes:
        return _why_tied(pool, group, existing)
    if group.max_per_node:
        return _why(pool, group, existing)
    shape = _shape(group)
    known = pool.full.get(shape, "")
    if not known:
        known = pool.full[shape] = _why(pool, group, existing)
    return known


def _fill(pool: Pool, group: Group, existing: dict[int, int], count: int) -> list[int]:
    if group.strategy == "pack":
        return pack(pool, group, existing, count)
    if group.spread:
        return spread_over_labels(pool, group, existing, count)
    return spread(pool, group, existing, count)


def _take_preferred(pool: Pool, group: Group, existing: dict[int, int]) -> tuple[list[Pair], Sequence[int]]:
    """The slots whose preferred node passes, and the other slots."""
    if not any(group.prefer):
        return [], group.slots
    pairs: list[Pair] = []
    others: list[int] = []
    eligible = set(pool.eligible(group))
    for slot, name in zip(group.slots, group.prefer, strict=True):
        i = pool.at.get(name, -1)
        if i in eligible and pool.room(i, group, existing.get(i, 0)):
            pool.take(i, group)
            existing[i] = existing.get(i, 0) + 1
            pairs.append((slot, name))
        else:
            others.append(slot)
    return pairs, others


def _held(pool: Pool, group: Group) -> tuple[list[tuple[str, tuple[str, ...]]], list[str]]:
    """The group's volumes that have a node, and the nodes that hold all of these."""
    held = [(name, pool.volumes[name]) for name in group.volumes if pool.volumes.get(name)]
    return held, [node for node in held[0][1] if all(node in nodes for _, nodes in held)] if held else []


def _tie(pool: Pool, group: Group, existing: Mapping[int, int]) -> Group | None:
    """The group pinned to the node of its volumes (chosen now when they have none yet); None when there is no such node."""
    held, common = _held(pool, group)
    choices = [pool.at[node] for node in common if node in pool.at] if held else pool.eligible(group)
    fit = [i for i in choices if not reason(pool, i, group, existing.get(i, 0))]
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


def _tie_rank(pool: Pool, group: Group, existing: Mapping[int, int], i: int) -> tuple[int, ...]:
    have = existing.get(i, 0)
    preferred = bool(group.prefer) and group.prefer[0] == pool.nodes[i].name
    return (-min(pool.room(i, group, have), len(group.slots)), not preferred, -have, *pool.rank(i))


def _why_tied(pool: Pool, group: Group, existing: Mapping[int, int]) -> str:
    held, common = _held(pool, group)
    if not held:
        return _why(pool, group, existing)
    if not common:
        places = [f"{name} {'on' if number else 'is on'} {' and '.join(nodes)}" for number, (name, nodes) in enumerate(held)]
        return "volume " + ", volume ".join(places)
    if len(common) > 1:
        why = summary(reason(pool, pool.at[node], group, existing.get(pool.at[node], 0)) for node in common if node in pool.at)
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
    return summary(reason(pool, i, group, existing.get(i, 0)) for i in range(len(pool.nodes)))
