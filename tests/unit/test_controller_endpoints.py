"""Who can be reached: what changes make of it, and what a session is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from controller.dispatch.endpoint_rows import is_ready
from controller.dispatch.endpoints import TOMBSTONES_MAX, EndpointBook
from controller.loops.picture import KINDS, Change, Snapshot
from model.documents import (
    Assigned,
    AssignedService,
    AssignmentDoc,
    NodeHealthDoc,
    ReplicaStatus,
    ServiceDoc,
    StatusDoc,
)
from model.spec import Attachment, ContainerSpec, ServiceSpec

NET = "shop_default"


def service(name: str = "shop_web", ident: str = "id1", **more: Any) -> ServiceDoc:
    container = ContainerSpec("busybox", networks=(Attachment(NET, aliases=("front",)),), **more)
    return ServiceDoc(ident, ServiceSpec(name, container, stack="shop"), 2)


def status(state: str = "running", health: str = "", ident: str = "id1", slot: int = 1) -> ReplicaStatus:
    return ReplicaStatus(
        ident, slot, 1, 5, state, container_id="c" * 64, addresses=((NET, f"10.64.0.{slot}/24"),), health=health
    )


class Cluster:
    """Documents by kind, and the book that is told of each change."""

    def __init__(self) -> None:
        self.kinds: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        self.book = EndpointBook()
        self.book.reload(self.snapshot())

    def snapshot(self) -> Snapshot:
        return Snapshot({kind: dict(rows) for kind, rows in self.kinds.items()}, {}, 1)

    def put(self, kind: str, name: str, document: Any) -> list[str]:
        old = self.kinds[kind].pop(name, None)
        if document is not None:
            self.kinds[kind][name] = document
        return self.book.take([Change(kind, name, old, document, 1)], self.snapshot())

    def run(self, node: str, *replicas: ReplicaStatus) -> list[str]:
        rows = tuple(Assigned(item.slot, 1, 5) for item in replicas)
        assigned = (AssignedService("id1", "shop_web", rows),) if rows else ()
        first = self.put("assignments", node, AssignmentDoc(node, 1, assigned))
        return first + self.put("status", node, StatusDoc(node, replicas=replicas))

    def told(self, since: int | None = None) -> tuple[Any, int]:
        return self.book.message(NET, since)


def test_a_running_replica_is_told_with_its_names() -> None:
    cluster = Cluster()
    cluster.put("services", "shop_web", service(hostname="snug"))
    assert cluster.run("n1", status()) == [NET]
    message, number = cluster.told()
    assert message.whole
    (row,) = message.services
    assert list(row.names) == ["shop_web", "web", "web.shop", "front"]
    (endpoint,) = row.endpoints
    assert (endpoint.replica, endpoint.address, endpoint.node, endpoint.ready) == ("shop_web.1", "10.64.0.1", "n1", True)
    assert list(endpoint.names) == ["web.1", "c" * 12, "snug"]
    assert cluster.told(number) == (None, number)


def test_only_running_and_healthy_ones_are_ready() -> None:
    assert is_ready(status())
    assert is_ready(status(health="healthy"))
    assert not is_ready(status(health="starting"))
    assert not is_ready(status("starting"))


def test_a_replica_that_is_no_longer_assigned_gets_no_new_caller_though_it_still_runs() -> None:
    cluster = Cluster()
    cluster.put("services", "shop_web", service())
    cluster.run("n1", status())
    _, number = cluster.told()
    assert cluster.put("assignments", "n1", AssignmentDoc("n1", 2)) == [NET]
    message, _ = cluster.told(number)
    assert not message.whole
    assert list(message.services[0].endpoints) == []


def test_a_node_that_is_down_is_left_out_and_one_that_is_unreachable_is_not() -> None:
    cluster = Cluster()
    cluster.put("services", "shop_web", service())
    cluster.run("n1", status())
    assert cluster.put("health", "n1", NodeHealthDoc("n1", "unreachable")) == []
    assert cluster.put("health", "n1", NodeHealthDoc("n1", "down")) == [NET]
    assert list(cluster.told()[0].services[0].endpoints) == []
    assert cluster.put("health", "n1", NodeHealthDoc("n1", "ready")) == [NET]
    assert len(cluster.told()[0].services[0].endpoints) == 1


def test_a_removed_service_and_one_that_left_the_network_are_told_as_gone() -> None:
    cluster = Cluster()
    cluster.put("services", "shop_web", service())
    _, number = cluster.told()
    assert cluster.put("services", "shop_web", None) == [NET]
    message, number = cluster.told(number)
    assert list(message.removed) == ["id1"]
    cluster.put("services", "shop_web", service(ident="id2"))
    moved = service(ident="id2")
    other = replace(moved.spec.container, networks=(Attachment("other"),))
    changed = replace(moved, spec=replace(moved.spec, container=other))
    assert sorted(cluster.put("services", "shop_web", changed)) == sorted([NET, "other"])
    assert list(cluster.told(number)[0].removed) == ["id2"]


def test_who_missed_more_than_is_remembered_gets_the_whole() -> None:
    cluster = Cluster()
    cluster.put("services", "shop_web", service())
    _, number = cluster.told()
    for turn in range(TOMBSTONES_MAX + 2):
        cluster.put("services", f"shop_{turn}", service(f"shop_{turn}", f"x{turn}"))
        cluster.put("services", f"shop_{turn}", None)
    message, _ = cluster.told(number)
    assert message.whole


def test_a_new_reign_begins_from_everything_and_numbers_go_on() -> None:
    cluster = Cluster()
    cluster.put("services", "shop_web", service())
    cluster.run("n1", status())
    before, number = cluster.told()
    cluster.book.reload(cluster.snapshot())
    after, later = cluster.told()
    assert (after.services, after.whole) == (before.services, True)
    assert later > number
    cluster.book.reload(cluster.snapshot(), epoch=2)
    assert cluster.told()[1] > 2 << 32, "above all that another controller may have told"


def test_a_status_that_says_the_same_again_tells_nobody() -> None:
    cluster = Cluster()
    cluster.put("services", "shop_web", service())
    cluster.run("n1", status())
    assert cluster.put("status", "n1", StatusDoc("n1", reported_ms=9, replicas=(status(),))) == []
