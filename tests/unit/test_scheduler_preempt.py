"""Victims on one node where there are too many of them to try every set."""

from __future__ import annotations

from scheduler.cover import Tenant, cover
from scheduler.types import Amounts


def test_more_victims_than_are_searched_are_still_none_too_many() -> None:
    tenants = [Tenant("a", slot, 0, slot, Amounts(1, slot % 3)) for slot in range(1, 101)]
    tenants += [Tenant("b", slot, 5, slot, Amounts(50, 50)) for slot in range(1, 5)]
    found = cover(tenants, (0, 30, 12, 0), -9)
    assert found is not None
    assert {tenant.service for tenant in found} == {"a"}, "a higher priority is not reached when the lower one is enough"
    cpus, memory = (sum(column) for column in list(zip(*(tenant.reserve for tenant in found), strict=True))[:2])
    assert cpus >= 30
    assert memory >= 12
    assert not any(cpus - one.reserve.cpus >= 30 and memory - one.reserve.memory >= 12 for one in found)


def test_five_thousand_small_ones_are_no_trouble() -> None:
    tenants = [Tenant("a", slot, 0, slot, Amounts(1)) for slot in range(1, 5_001)]
    found = cover(tenants, (0, 4_000, 0, 0), -9)
    assert found is not None
    assert [tenant.slot for tenant in found] == list(range(5_000, 1_000, -1)), "the youngest go"
    assert cover(tenants, (0, 5_001, 0, 0), -9) is None


def test_who_does_not_help_stays() -> None:
    idle, memory = Tenant("idle", 1, -5, 9), Tenant("memory", 1, 0, 9, Amounts(0, 4))
    both = Tenant("both", 1, 0, 1, Amounts(2, 1))
    assert cover([idle, memory, both], (0, 2, 0, 0), -9) == [both]
    assert cover([idle, memory, both], (0, 0, 0, 0), -9) == []
    assert cover([idle, memory, both], (1, 0, 0, 0), -9) == [idle], "a place among the node's replicas is what is lacking"
