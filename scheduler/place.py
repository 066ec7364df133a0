"""Placement of a batch of groups, one after the other, on one account.

Rules: pure; the same cluster and groups give the same answer. A group is placed as far as it goes; the rest is refused with
one reason. Local volumes bind: the first placement chooses the node, every later replica goes there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from scheduler.branches import spread_over_labels
from scheduler.fill import pack, spread
from scheduler.filters import reason, summary
from scheduler.pool import Pool, demand_of
from scheduler.types import ClusterView, Group, Placement, Refusal

Pair = tuple[int, str]


def place(cluster: ClusterView, groups: Sequence[Group]) -> Placement:
    """Where each replica of each group goes, and why not. Earlier groups are served first."""
    pool = Pool(cluster)
    assigned: list[tuple[Pair, ...]] = []
    refused: list[Refusal | None] = []
    for group in groups:
        pairs, refusal = _everywhere(pool, group) if group.everywhere else _place_group(pool, group)
        assigned.append(tuple(pairs))
        refused.append(refusal)
    bound = {name: nodes for name, nodes in pool.volumes.items() if cluster.volumes.get(name) != nodes}
    return Placement(tuple(assigned), tuple(refused), bound)


def _everywhere(pool: Pool, group: Group) -> tuple[list[Pair], Refusal | None]:
    """One replica on every node that passes. Only nodes that it should run on but cannot are refusals."""
    pairs: list[Pair] = []
    short: list[str] = []
    for i in pool.eligible(group):
        name = pool.nodes[i].name
        if name in group.existing:
            continue
        if pool.room(i, group, 0):
            pool.take(i, group)
            pairs.append((0, name))
        else:
            short.append(reason(pool, i, group, 0))
    return pairs, Refusal((0,), summary(short)) if short else None


def _place_group(pool: Pool, group: Group) -> tuple[list[Pair], Refusal | None]:
    existing = {pool.at[name]: count for name, count in group.existing.items() if count and name in pool.at}
    if group.volumes:
        tied = _tie(pool, group, existing)
        if isinstance(tied, str):
            return [], Refusal(tuple(group.slots), tied)
        group = tied
    pairs, slots = _take_preferred(pool, group, existing)
    shape = (demand_of(group), group.node, group.reserve)
    if slots and not group.max_per_node and shape in pool.full:
        return pairs, Refusal(tuple(slots), pool.full[shape])
    order = _fill(pool, group, existing, len(slots)) if slots else []
    nodes = pool.nodes
    pairs += [(slot, nodes[i].name) for slot, i in zip(slots, order, strict=False)]
    if len(order) == len(slots):
        return pairs, None
    for i in order:
        existing[i] = existing.get(i, 0) + 1
    why = _why(pool, group, existing)
    if group.volumes:
        why = _why_tied(pool, group, existing, group.volumes[0], pool.at[group.node])
    if not group.max_per_node:
        pool.full[shape] = why
    return pairs, Refusal(tuple(slots[len(order) :]), why)


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


def _tie(pool: Pool, group: Group, existing: Mapping[int, int]) -> Group | str:
    """The group pinned to the node of its volumes (chosen now when they have none yet), or why that cannot be."""
    held = [(name, pool.volumes[name]) for name in group.volumes if pool.volumes.get(name)]
    if held:
        common = [node for node in held[0][1] if all(node in nodes for _, nodes in held)]
        if not common:
            return "volume " + ", volume ".join(
                f"{name} {'is ' if number == 0 else ''}on {' and '.join(nodes)}" for number, (name, nodes) in enumerate(held)
            )
        choices = [pool.at[node] for node in common if node in pool.at]
        if not choices:
            return f"volume {held[0][0]} is on {common[0]}, which is removed"
    else:
        choices = pool.eligible(group)
    fit = [i for i in choices if not reason(pool, i, group, existing.get(i, 0))]
    if not fit:
        return _why_tied(pool, group, existing, held[0][0], choices[0]) if held else _why(pool, group, existing)
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


def _why_tied(pool: Pool, group: Group, existing: Mapping[int, int], volume: str, i: int) -> str:
    phrase = reason(pool, i, group, existing.get(i, 0))
    link = ", which has " if phrase.startswith("not enough") else ", which is " if " " not in phrase else ": "
    return f"volume {volume} is on {pool.nodes[i].name}{link}{phrase}"


def _why(pool: Pool, group: Group, existing: Mapping[int, int]) -> str:
    if not pool.nodes:
        return "there is no node"
    if group.node:
        i = pool.at.get(group.node)
        if i is None:
            return f"node {group.node} does not exist"
        return f"node {group.node}: {reason(pool, i, group, existing.get(i, 0))}"
    return summary(reason(pool, i, group, existing.get(i, 0)) for i in range(len(pool.nodes)))
