"""Preemption: which replicas of lower priority have to stop, on which nodes, so that slots without a node get one.

Rules: pure; facts in, an explained list out. Asked only for slots that found no room anywhere, so every node that passes the
filters lacks something that others hold: resources, or a port. The node whose victims are of the lowest priority is taken, of
these the one with the fewest victims (cover.py), then by rank. Where its volumes are, there a group stays.
Generic resources are never taken from others: a node that lacks them is not looked at.
What it costs: a glance at every node that passes the filters (`Tenancy.most`), a look (`Tenancy.on`) at the promising ones.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, Protocol

from scheduler.cover import ENOUGH, Lack, Tenant, cover, less
from scheduler.filters import crowded
from scheduler.pool import PLENTY, Pool
from scheduler.ports import PortClaim, first_taken
from scheduler.types import NODE_REPLICAS_MAX, Amounts, Group, Load

LOOKS_MAX: Final = 256
"""So many nodes are looked at for one group, to find better victims than those that were found."""
_NOBODY: Final = -(1 << 40)
"""The priority of no victim at all."""


@dataclass(frozen=True, slots=True)
class Victim:
    """A replica that is stopped, and why: what the node lacks without that."""

    service: str
    slot: int
    node: str
    why: str
    priority: int = 0
    created_ms: int = 0


@dataclass(frozen=True, slots=True)
class Eviction:
    """A slot that gets `node` when its victims have gone; there are none where earlier ones have left enough."""

    slot: int
    node: str
    victims: tuple[Victim, ...]


class Tenancy(Protocol):
    """Who stands on the nodes, seen from a service that asks for room."""

    def most(self, node: str) -> Sequence[tuple[int, Load]]:
        """By priority, the lowest first, what the replicas of lower priority have there; rather too much than too little."""
        ...

    def biggest(self, priority: int) -> Amounts:
        """The most of each resource that one replica of this priority, or of a lower one, has."""
        ...

    def on(self, node: str) -> Sequence[Tenant]:
        """The replicas that may be stopped."""
        ...

    def fixed_ports(self, node: str) -> Collection[PortClaim]:
        """What is taken there by anybody else."""
        ...


def make_room(pool: Pool, group: Group, tenancy: Tenancy, victims_max: int) -> list[Eviction]:
    """Nodes for the group's slots (of a global service: all that lack it), each with its victims. The pool is not changed.

    Ends when no node can be had, or when `victims_max` victims are reached.
    """
    search = _Search(pool, group, tenancy)
    found: list[Eviction] = []
    victims = 0
    slots = iter(group.slots)
    while victims < victims_max:
        slot = 0 if group.everywhere else next(slots, None)
        eviction = None if slot is None else search.next(slot)
        if eviction is None:
            break
        victims += len(eviction.victims)
        found.append(eviction)
    return found


def give_back(pool: Pool, node: str, reserve: Amounts) -> None:
    """For this pass the node has one replica less, which had reserved so much."""
    i = pool.at[node]
    left, total = pool.where[i], pool.nodes[i].total
    pids = total.pids - left.pids - reserve.pids if left.pids != PLENTY else 0
    load = Load(
        left.replicas - 1, total.cpus - left.cpus - reserve.cpus, total.memory - left.memory - reserve.memory, pids
    )  # fmt: skip
    pool.lend(node, load)


class _Left:
    """What a node has left, with what was decided in this search."""

    __slots__ = ("cpus", "given", "gone", "memory", "pids", "replicas")

    def __init__(self, pool: Pool, i: int) -> None:
        alike = pool.where[i]
        self.replicas, self.cpus, self.memory, self.pids = alike.replicas, alike.cpus, alike.memory, alike.pids
        self.given = 0
        self.gone: set[tuple[str, int, int]] = set()

    def lack(self, want: Amounts) -> Lack:
        return (
            max(self.replicas + 1 - NODE_REPLICAS_MAX, 0), max(want.cpus - self.cpus, 0) if want.cpus else 0,
            max(want.memory - self.memory, 0) if want.memory else 0, max(want.pids - self.pids, 0) if want.pids else 0,
        )  # fmt: skip

    def take(self, reserve: Amounts, times: int) -> None:
        """So many replicas more (or less)."""
        self.replicas += times
        self.cpus -= times * reserve.cpus
        self.memory -= times * reserve.memory
        if self.pids != PLENTY:
            self.pids -= times * reserve.pids


Key = tuple[int, int, int, int, int]
"""The highest priority among the victims, their number, and the node's rank."""


class _Search:
    """`maybe`: nodes by what their victims are at best; `sure`: those that were looked at, with their victims."""

    def __init__(self, pool: Pool, group: Group, tenancy: Tenancy) -> None:
        self.pool, self.group, self.tenancy = pool, group, tenancy
        self.per_node = 1 if group.everywhere or group.ports else group.max_per_node
        self.looks = 0
        self.leasts: dict[tuple[Lack, int], int] = {}
        self.left: dict[int, _Left] = {}
        self.maybe: list[Key] = []
        self.sure: list[tuple[Key, tuple[Tenant, ...], str]] = []
        for i in _nodes(pool, group):
            self._glance(i)

    def next(self, slot: int) -> Eviction | None:
        """The best node for one more."""
        while self.maybe and (not self.sure or (self.maybe[0][:2] < self.sure[0][0][:2] and self.looks < LOOKS_MAX)):
            self._look(heappop(self.maybe)[-1])
            self.looks += 1
        if not self.sure:
            return None
        key, tenants, why = heappop(self.sure)
        i = key[-1]
        self._settle(i, tenants)
        name = self.pool.names[i]
        victims = tuple(Victim(one.service, one.slot, name, why, one.priority, one.created_ms) for one in tenants)
        return Eviction(slot, name, victims)

    def _settle(self, i: int, tenants: tuple[Tenant, ...]) -> None:
        left = self.left.setdefault(i, _Left(self.pool, i))
        for tenant in tenants:
            left.take(tenant.reserve, -1)
            left.gone.add((tenant.service, tenant.slot, tenant.created_ms))
        left.take(self.group.reserve, 1)
        left.given += 1
        if self.group.volumes and not self.group.everywhere:
            self.maybe, self.sure = [], []
        self._glance(i)

    def _glance(self, i: int) -> None:
        """Whether the node can be had at all, and at best how."""
        name, group = self.pool.names[i], self.group
        left = self.left.get(i) or _Left(self.pool, i)
        if self.per_node and group.existing.get(name, 0) + left.given >= self.per_node:
            return
        if group.generic and self.pool.stock.room(self.pool.nodes[i], group.generic) <= left.given:
            return
        lack = left.lack(group.reserve)
        ceiling = _NOBODY
        missing = lack
        for priority, load in self.tenancy.most(name):
            if missing == ENOUGH:
                break
            ceiling = priority
            missing = (
                max(missing[0] - load.replicas, 0), max(missing[1] - load.cpus, 0), max(missing[2] - load.memory, 0),
                max(missing[3] - load.pids, 0),
            )  # fmt: skip
        if missing == ENOUGH:
            heappush(self.maybe, (ceiling, self._least(lack, ceiling), *self.pool.rank(i)))

    def _least(self, lack: Lack, ceiling: int) -> int:
        """So many victims of up to this priority it takes at least."""
        if lack == ENOUGH:
            return 0
        known = self.leasts.get((lack, ceiling))
        if known is None:
            most = (1, *self.tenancy.biggest(ceiling))
            known = max(-(-need // each) for need, each in zip(lack, most, strict=True) if need)
            self.leasts[lack, ceiling] = known
        return known

    def _look(self, i: int) -> None:
        """Find the node's victims, if there are such that make room."""
        name, group = self.pool.names[i], self.group
        left = self.left.get(i) or _Left(self.pool, i)
        tenants = [one for one in self.tenancy.on(name) if (one.service, one.slot, one.created_ms) not in left.gone]
        lack = left.lack(group.reserve)
        why = crowded(left, group)
        forced: list[Tenant] = []
        if group.ports:
            if first_taken(group.ports, self.tenancy.fixed_ports(name)):
                return
            forced = [one for one in tenants if first_taken(group.ports, one.ports)]
            for one in forced:
                lack = less(lack, one.reserve)
                port = first_taken(group.ports, one.ports)
                why = why or f"port {port.text if port else ''} is taken on the node"
        floor = max((one.priority for one in forced), default=_NOBODY)
        rest = cover([one for one in tenants if one not in forced], lack, floor)
        if rest is not None:
            victims = (*forced, *rest)
            ceiling = max((one.priority for one in victims), default=_NOBODY)
            heappush(self.sure, ((ceiling, len(victims), *self.pool.rank(i)), victims, why))


def _nodes(pool: Pool, group: Group) -> list[int]:
    """The nodes that pass the filters that no victim changes."""
    found = pool.eligible(group)
    held = [set(pool.volumes[name]) for name in group.volumes if pool.volumes.get(name)]
    if held and not group.everywhere:
        found = [i for i in found if all(pool.names[i] in nodes for nodes in held)]
    if group.everywhere:
        found = [i for i in found if pool.names[i] not in group.existing]
    return found
