"""Who can be reached: what changes make of it, and what a session is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from controller.dispatch.endpoint_rows import ingress_networks, is_ready
from controller.dispatch.endpoints import TOMBSTONES_MAX, EndpointBook
from controller.loops.picture import KINDS, Change, Snapshot
from model.autoscale import Autoscale, ScalingSchedule
from model.documents import (
    INGRESS,
    Assigned,
    AssignedService,
    AssignmentDoc,
    NetworkDoc,
    NetworkPlanDoc,
    NodeHealthDoc,
    NodeInfo,
    ReplicaStatus,
    ServiceDoc,
    ServicePlanDoc,
    StatusDoc,
)
from model.spec import Attachment, ContainerSpec, NetworkSpec, Port, ServiceSpec

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
        assigned = (AssignedService.of("id1", "shop_web", rows),) if rows else ()
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


# ---- services' addresses, published ports, numbers


def plan(*ports: Port, ident: str = "id1", vip: str = "10.64.192.1") -> ServicePlanDoc:
    return ServicePlanDoc(ident, "shop_web", ((NET, vip),), ports)


def published(cluster: Cluster, since: int | None = None) -> Any:
    return cluster.book.message(INGRESS, since)[0]


def test_a_service_has_its_own_address_as_soon_as_it_is_planned() -> None:
    cluster = Cluster()
    cluster.put("services", "shop_web", service())
    assert cluster.put("svcplans", "shop_web", plan()) == [NET]
    assert cluster.told()[0].services[0].vip == "10.64.192.1"
    assert cluster.put("svcplans", "shop_web", plan(ident="of an older one")) == [NET]
    assert cluster.told()[0].services[0].vip == ""


def test_the_prefix_of_a_network_is_told_with_it() -> None:
    cluster = Cluster()
    cluster.put("services", "shop_web", service())
    _, number = cluster.told()
    assert cluster.put("netplans", NET, NetworkPlanDoc("n", NET, 5000, "10.64.0.0/16", prefix6="fd00:1::/96")) == [NET]
    message, _ = cluster.told(number)
    assert (message.prefix6, len(message.services), message.whole) == ("fd00:1::/96", 0, False)


def test_published_ports_are_told_to_everybody_with_the_nodes_address() -> None:
    cluster = Cluster()
    cluster.put("services", "shop_web", service())
    cluster.run("n1", status())
    assert published(cluster).services == []
    ports = (Port(80, 8080), Port(53, 5353, "udp", local=True), Port(90, 9090, mode="host"))
    assert sorted(cluster.put("svcplans", "shop_web", plan(*ports))) == [INGRESS, NET]
    (row,) = published(cluster).services
    assert [(port.published, port.target, port.protocol, port.local) for port in row.ports] == [
        (8080, 80, "tcp", False),
        (5353, 53, "udp", True),
    ]
    (endpoint,) = row.endpoints
    assert (endpoint.address, endpoint.network, endpoint.underlay) == ("10.64.0.1", NET, "")
    known = StatusDoc("n1", NodeInfo(underlay="192.0.2.1"), replicas=(status(),))
    assert cluster.put("status", "n1", known) == [INGRESS], "its network does not care where it runs"
    assert published(cluster).services[0].endpoints[0].underlay == "192.0.2.1"


def test_who_is_told_of_late_and_again_is_told_with_what_runs_then() -> None:
    spec = service().spec
    bare = replace(service(), spec=replace(spec, container=replace(spec.container, networks=())))
    row = replace(status(), addresses=(("bridge", "172.17.0.2/16"),))
    cluster = Cluster()
    cluster.put("services", "shop_web", bare)
    cluster.run("n1", row)
    cluster.run("n2", row)
    assert published(cluster).services == []
    for nodes in (["n1", "n2"], ["n1", "n3"]):
        assert cluster.put("svcplans", "shop_web", plan(Port(80, 8080))) == [INGRESS]
        (told,) = published(cluster).services
        assert [(endpoint.node, endpoint.address) for endpoint in told.endpoints] == [(node, "172.17.0.2") for node in nodes]
        again = EndpointBook()
        again.reload(cluster.snapshot())
        assert again.message(INGRESS, None)[0].services == published(cluster).services  # type: ignore[union-attr]
        assert cluster.put("svcplans", "shop_web", None) == [INGRESS]
        assert published(cluster).services == []
        cluster.run("n2")
        cluster.run("n3", row)


def test_published_ports_go_by_the_first_network_that_has_a_way_out() -> None:
    inside, bridge = Attachment("inside"), Attachment("bridge")
    spec = service().spec
    both = replace(service(), spec=replace(spec, container=replace(spec.container, networks=(inside, bridge))))
    networks = {"inside": NetworkDoc("i", NetworkSpec("inside", internal=True))}
    assert list(ingress_networks(both, networks)) == ["bridge"]
    assert list(ingress_networks(both, {})) == ["inside", "bridge"]
    bare = replace(spec, container=replace(spec.container, networks=()))
    assert list(ingress_networks(replace(both, spec=bare), {})) == ["bridge"], "as the agent does it"
    assert list(ingress_networks(replace(both, networks=()), {})) == [], "disconnected from all"
    host = replace(spec, container=replace(spec.container, networks=(Attachment("host"),)))
    assert list(ingress_networks(replace(both, spec=host), {})) == []


def test_a_live_connection_counts_instead_of_what_the_spec_says() -> None:
    cluster = Cluster()
    cluster.put("services", "shop_web", service())
    _, number = cluster.told()
    moved = replace(service(), networks=(Attachment("other", ("there",)),))
    assert sorted(cluster.put("services", "shop_web", moved)) == sorted([NET, "other"])
    assert list(cluster.told(number)[0].removed) == ["id1"]
    message, _ = cluster.book.message("other", None)
    assert message is not None
    assert "there" in message.services[0].names


def test_a_service_that_is_stopped_gets_no_new_caller_at_once() -> None:
    cluster = Cluster()
    cluster.put("services", "shop_web", service())
    cluster.run("n1", status())
    cluster.book.lost()
    assert cluster.put("services", "shop_web", replace(service(), stopped=True)) == [NET]
    assert list(cluster.told()[0].services[0].endpoints) == []
    assert cluster.book.lost() == {"n1": cluster.book.number}


def test_a_service_that_may_sleep_does_so_while_no_replica_is_ready() -> None:
    cluster = Cluster()
    policy = Autoscale(0, 5)

    def told() -> list[bool]:
        messages = [cluster.book.message(name, None)[0] for name in (NET, INGRESS)]
        return [message.services[0].sleeping for message in messages if message is not None]

    def put(autoscale: Autoscale | None, **more: Any) -> None:
        document = service()
        cluster.put("services", "shop_web", replace(document, spec=replace(document.spec, autoscale=autoscale), **more))

    put(policy)
    cluster.put("svcplans", "shop_web", ServicePlanDoc("id1", "shop_web", ((NET, "10.64.192.1"),), (Port(80, 8080),)))
    assert told() == [True, True]
    cluster.run("n1", status("starting"))
    assert told() == [True, True]
    cluster.run("n1", status())
    assert told() == [False, False]
    cluster.run("n1")
    assert told() == [True, True]
    put(policy, stopped=True)
    assert told() == [False, False]
    for other in (None, replace(policy, mode="recommend"), replace(policy, min=1)):
        put(other)
        assert told() == [False, False]
    put(replace(policy, min=1, schedules=(ScalingSchedule("0 20 * * *", 3600.0, min=0),)))
    assert told() == [True, True]


def test_a_node_that_lost_endpoints_is_named_once_with_the_number() -> None:
    cluster = Cluster()
    cluster.put("services", "shop_web", service())
    cluster.run("n1", status())
    assert cluster.book.lost() == {}
    cluster.put("status", "n1", StatusDoc("n1", replicas=(status(health="unhealthy"),)))
    assert cluster.book.lost() == {}, "it is still there, only not ready"
    cluster.put("assignments", "n1", AssignmentDoc("n1", 2))
    assert cluster.book.lost() == {"n1": cluster.book.number}
    assert cluster.book.lost() == {}


def test_news_is_found_without_looking_at_what_is_known() -> None:
    cluster = Cluster()
    for turn in range(2_000):
        cluster.put("services", f"shop_{turn}", service(f"shop_{turn}", f"x{turn}"))
    _, number = cluster.told()
    assert not cluster.book.has_news(NET, number)
    cluster.put("services", "shop_1", replace(service("shop_1", "x1"), networks=(Attachment(NET),)))
    assert cluster.book.has_news(NET, number)
    message, _ = cluster.told(number)
    assert [row.service_id for row in message.services] == ["x1"]


def test_a_network_that_went_and_came_again_leaves_nobody_with_what_was_on_it() -> None:
    cluster = Cluster()
    cluster.put("netplans", NET, NetworkPlanDoc("a", NET, 4097, "10.64.0.0/16"))
    cluster.put("services", "shop_web", service())
    _, knows = cluster.told()
    cluster.put("services", "shop_web", None)
    _, heard = cluster.told(knows)
    cluster.put("netplans", NET, None)
    cluster.put("netplans", NET, NetworkPlanDoc("b", NET, 4098, "10.65.0.0/16"))
    message, _ = cluster.told(knows)
    assert (message.whole, list(message.services)) == (True, [])
    assert cluster.told(heard)[0] is None
