"""Which of several replicas have to go, so that enough comes free: the fewest, of the lowest priority, the youngest first.

Rules: pure. Never one that does not help, and none that could be left out. First the lowest priority that has to be reached,
then the smallest number, then the order of preference: the first difference decides. Up to `EXACT_MAX` victims that is exact;
beyond that (or where a look costs too much) the one that helps most goes, again and again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from scheduler.ports import PortClaim
from scheduler.types import Amounts

EXACT_MAX: Final = 8
_STEPS_MAX: Final = 2_000

Lack = tuple[int, int, int, int]
"""Replicas, cpus, memory, pids."""
ENOUGH: Final[Lack] = (0, 0, 0, 0)


class Tenant(NamedTuple):
    """A replica that may be stopped for another one. `created_ms` (Unix ms): the greatest is the youngest."""

    service: str
    slot: int
    priority: int
    created_ms: int
    reserve: Amounts = Amounts()
    ports: tuple[PortClaim, ...] = ()


def preferred(tenant: Tenant) -> tuple[int, int, str, int]:
    """Who goes first, the smallest first."""
    return (tenant.priority, -tenant.created_ms, tenant.service, -tenant.slot)


def less(lack: Lack, reserve: Amounts) -> Lack:
    """What is still missing when a replica that reserves so much goes."""
    replicas, cpus, memory, pids = lack
    return (
        max(replicas - 1, 0), max(cpus - reserve.cpus, 0), max(memory - reserve.memory, 0), max(pids - reserve.pids, 0),
    )  # fmt: skip


def cover(tenants: Sequence[Tenant], lack: Lack, floor: int) -> list[Tenant] | None:
    """The tenants that go, in the order of preference; None when all of them are not enough. Up to the priority `floor` one is
    as good as another: somebody of it goes anyway."""
    helping = sorted((tenant for tenant in tenants if less(lack, tenant.reserve) != lack), key=preferred)
    for priority in dict.fromkeys(max(tenant.priority, floor) for tenant in helping):
        some = [tenant for tenant in helping if tenant.priority <= priority]
        if _all_of(some, lack) == ENOUGH:
            return _fewest(some, lack)
    return None if lack != ENOUGH else []


def _all_of(tenants: Sequence[Tenant], lack: Lack) -> Lack:
    for tenant in tenants:
        lack = less(lack, tenant.reserve)
        if lack == ENOUGH:
            break
    return lack


def _fewest(tenants: list[Tenant], lack: Lack) -> list[Tenant]:
    best = _greedy(tenants, lack)
    if len(best) == 1:
        return [next(tenant for tenant in tenants if less(lack, tenant.reserve) == ENOUGH)]
    search = _Search(tenants, lack)
    for count in range(2, min(len(best), EXACT_MAX) + 1):
        if (found := search.of(count)) is not None:
            return found
    return best


def _greedy(tenants: list[Tenant], lack: Lack) -> list[Tenant]:
    """Who helps most goes, until it is enough; who is not needed in the end stays. Tenants of one size are one question."""
    sizes: dict[Amounts, list[Tenant]] = {}
    for tenant in reversed(tenants):
        sizes.setdefault(tenant.reserve, []).append(tenant)
    chosen: list[Tenant] = []
    left = lack
    while left != ENOUGH:
        size = max((size for size, some in sizes.items() if some), key=lambda size: (_share(size, left), size))
        chosen.append(sizes[size].pop())
        left = less(left, chosen[-1].reserve)
    return _without_spare(sorted(chosen, key=preferred), lack)


def _without_spare(chosen: list[Tenant], lack: Lack) -> list[Tenant]:
    """Those that are needed: who would go last is the first to be left out."""
    columns = zip(*((1, *one.reserve) for one in chosen), strict=True)
    spare = [sum(column) - need for column, need in zip(columns, lack, strict=True)]
    kept: list[Tenant] = []
    for tenant in reversed(chosen):
        size = (1, *tenant.reserve)
        if all(have >= each for have, each, need in zip(spare, size, lack, strict=True) if need):
            spare = [have - each for have, each in zip(spare, size, strict=True)]
        else:
            kept.append(tenant)
    return kept[::-1]


def _share(size: Amounts, lack: Lack) -> float:
    """How much of what is missing one of this size gives, each resource counted alike."""
    return sum(min(have / need, 1.0) for have, need in zip((1, *size), lack, strict=True) if need)


class _Search:
    """All sets of a number of tenants, in the order of preference, as far as they can still be enough."""

    def __init__(self, tenants: list[Tenant], lack: Lack) -> None:
        seen: Counter[Amounts] = Counter()
        self.tenants: list[Tenant] = []
        for tenant in tenants:
            seen[tenant.reserve] += 1
            if seen[tenant.reserve] <= EXACT_MAX:  # of one size the others never go before these
                self.tenants.append(tenant)
        self.lack, self.steps = lack, 0
        self.most: list[Lack] = [ENOUGH]
        for tenant in reversed(self.tenants):
            replicas, cpus, memory, pids = self.most[-1]
            size = tenant.reserve
            self.most.append((max(replicas, 1), max(cpus, size.cpus), max(memory, size.memory), max(pids, size.pids)))
        self.most.reverse()

    def of(self, count: int) -> list[Tenant] | None:
        """The first set of so many that is enough; None: there is none, or it was not found in time."""
        return self._from(0, count, self.lack)

    def _from(self, start: int, count: int, lack: Lack) -> list[Tenant] | None:
        if lack == ENOUGH:
            return []
        tried: set[Amounts] = set()
        for at in range(start, len(self.tenants)):
            self.steps += 1
            most = self.most[at]
            if not count or self.steps > _STEPS_MAX or any(
                need > each * count for need, each in zip(lack, most, strict=True)
            ):
                return None
            tenant = self.tenants[at]
            if tenant.reserve in tried:
                continue
            tried.add(tenant.reserve)
            rest = self._from(at + 1, count - 1, less(lack, tenant.reserve))
            if rest is not None:
                return [tenant, *rest]
        return None
