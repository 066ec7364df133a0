"""The plan of faults, and the search for the smallest one."""

from __future__ import annotations

from itertools import combinations
from random import Random

import pytest

from sim.faults import BY_NAME, KINDS, Fault, plan_faults
from sim.shrink import smallest

NODES = tuple(f"n{number}" for number in range(1, 11))


@pytest.fixture(scope="module")
def plan() -> tuple[Fault, ...]:
    return plan_faults(Random(5), NODES, ("c1", "c2", "c3"), 400.0, 300, begin_s=20.0)


def test_every_fault_is_within_its_time_and_there_are_as_many_as_asked(plan: tuple[Fault, ...]) -> None:
    assert len(plan) == 300
    assert all(20.0 <= fault.at_s <= fault.ends_s <= 400.0 for fault in plan)
    assert [*plan] == sorted(plan, key=lambda fault: fault.at_s)
    assert {fault.kind for fault in plan} == {kind.name for kind in KINDS}


def test_faults_of_one_group_never_overlap_on_a_target(plan: tuple[Fault, ...]) -> None:
    for one, other in combinations(plan, 2):
        if (BY_NAME[one.kind].group, one.target) == (BY_NAME[other.kind].group, other.target):
            assert one.ends_s < other.at_s, (one, other)


def test_a_plan_comes_from_its_seed_alone(plan: tuple[Fault, ...]) -> None:
    assert plan == plan_faults(Random(5), NODES, ("c1", "c2", "c3"), 400.0, 300, begin_s=20.0)
    assert plan != plan_faults(Random(6), NODES, ("c1", "c2", "c3"), 400.0, 300, begin_s=20.0)


def test_without_room_there_are_fewer() -> None:
    plan = plan_faults(Random(1), ("n1",), (), 10.0, 1000)
    assert 0 < len(plan) < 1000


@pytest.mark.parametrize("guilty", [{3}, {3, 17}, {0, 1, 99}, {5, 6, 7, 8, 50}])
def test_the_smallest_list_is_found(guilty: set[int]) -> None:
    assert set(smallest(range(100), lambda items: guilty <= set(items), tries=500)) == guilty


def test_what_fails_without_any_needs_none() -> None:
    assert smallest(range(100), lambda items: True) == ()


def test_the_search_is_bounded_and_what_it_gives_still_fails() -> None:
    asked: list[tuple[int, ...]] = []

    def fails(items: tuple[int, ...]) -> bool:
        asked.append(items)
        return {1, 40, 77} <= set(items)

    assert {1, 40, 77} <= set(smallest(range(100), fails, tries=7))
    assert len(asked) == 7
