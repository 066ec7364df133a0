"""Merging desired state: whole documents, differences, and what cannot be taken."""

from __future__ import annotations

import pytest

from agent.plan.desired import DesiredMessage, DesiredMismatch, changes, merge, replica_name, used_specs
from agent.plan.network import NetworkWanted
from agent.plan.records import Desired, ReplicaId, Slot, WantedService, WantedSpec
from model.spec import ContainerSpec, ServiceSpec

SPEC = ServiceSpec("shop_web", ContainerSpec("web:1"))
NET = NetworkWanted("shop_default", 7, "10.0.0.0/16", "10.0.1.0/24")


def whole(generation: int = 1, slots: int = 2) -> DesiredMessage:
    service = WantedService("s1", "shop_web", tuple(Slot(n, 1, 5) for n in range(1, slots + 1)))
    return DesiredMessage(generation, services=(service,), specs=(WantedSpec("s1", 1, SPEC),), networks=(NET,))


def test_a_difference_changes_only_what_it_names() -> None:
    base = merge(Desired(), whole())
    other = WantedService("s2", "shop_db", (Slot(1, 1, 5),))
    after = merge(base, DesiredMessage(2, False, 1, services=(other,), specs=(WantedSpec("s2", 1, SPEC),)))
    assert [service.id for service in after.services] == ["s1", "s2"]
    assert after.networks == (NET,)
    gone = merge(after, DesiredMessage(3, False, 2, removed_services=("s1",), removed_networks=("shop_default",)))
    assert ([service.id for service in gone.services], gone.networks) == (["s2"], ())


def test_a_difference_on_another_base_is_refused() -> None:
    with pytest.raises(DesiredMismatch, match="builds on 7, but this node has 1"):
        merge(merge(Desired(), whole()), DesiredMessage(8, False, 7))


def test_a_slot_without_its_spec_is_refused() -> None:
    service = WantedService("s1", "shop_web", (Slot(1, 9, 5),))
    with pytest.raises(DesiredMismatch, match="version 9 was never sent"):
        merge(merge(Desired(), whole()), DesiredMessage(2, False, 1, services=(service,)))


def test_specs_sent_once_are_known_for_the_whole_session() -> None:
    base = merge(Desired(), whole())
    gone = merge(base, DesiredMessage(2, False, 1, removed_services=("s1",)))
    back = merge(gone, DesiredMessage(3, False, 2, services=(WantedService("s1", "shop_web", (Slot(1, 1, 6),)),)))
    assert back.services[0].slots == (Slot(1, 1, 6),)
    assert used_specs(gone).specs == ()


def test_changes_begin_what_is_missing_and_end_what_is_not_wanted() -> None:
    desired = merge(Desired(), whole())
    found = changes(desired, {})
    assert [key for key, _, _ in found.begin] == [ReplicaId("s1", 1, 5, 1), ReplicaId("s1", 2, 5, 1)]
    assert changes(Desired(), {}) == changes(Desired(), {})


def test_names_of_replicas() -> None:
    assert replica_name(SPEC, 3, "n1") == "shop_web.3"
    assert replica_name(ServiceSpec("agent", ContainerSpec("x"), mode="global"), 0, "n1") == "agent.n1"
    assert replica_name(ServiceSpec("box", ContainerSpec("x"), single=True), 1, "n1") == "box"
