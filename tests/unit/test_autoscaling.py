"""One pass of the autoscaler over a small cluster: facts out of documents, one guarded write, silence when nothing changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.decide.autoscaling import decide_scaling
from controller.decide.scaling.types import Series
from controller.decide.services import decide_services
from controller.decide.serving import ServingCounts
from controller.decide.types import Measured, Plan, Settings, View
from model.autoscale import Autoscale, ScalingMetric
from model.documents import ReplicaStatus, ScaleDoc, ScaleOrderDoc, ServiceDoc, key
from tests.scenarios.model_cluster import ModelCluster

POLICY = Autoscale(2, 20, (ScalingMetric("connections", 50.0),))
SETTINGS = Settings()


@pytest.fixture
def cluster() -> ModelCluster:
    cluster = ModelCluster()
    for name in ("n1", "n2"):
        cluster.node(name)
    cluster.service("web", 2)
    policy(cluster, POLICY)
    cluster.converge()
    return cluster


def policy(cluster: ModelCluster, wanted: Autoscale | None) -> None:
    doc: ServiceDoc = cluster.docs["services"]["web"]
    cluster.docs["services"]["web"] = replace(doc, spec=replace(doc.spec, autoscale=wanted))


def load(cluster: ModelCluster, per_s: float) -> Measured:
    """A minute of it, a row a second."""
    rows = [(cluster.now_ms - second * 1000, per_s, None) for second in range(90, 0, -1)]
    return Measured({"connections": Series(tuple(rows))})


def pass_over(cluster: ModelCluster, measured: Measured, **more: Any) -> Plan:
    view = replace(cluster.view(), measured={"web": measured}, **more)
    return decide_scaling(view, ["web"], SETTINGS, cluster.now_ms, ServingCounts())


def test_load_raises_the_count_and_is_written_with_its_reason(cluster: ModelCluster) -> None:
    plan = pass_over(cluster, load(cluster, 300.0))
    ((document, service),) = plan.scales
    assert service.scale == 6
    assert service.updated_ms == cluster.now_ms
    assert (document.id, document.name, document.wanted) == (service.id, "web", 6)
    assert document.last is not None
    assert (document.last.ready, document.last.starting, document.last.before) == (2, 0, 2)
    (event,) = plan.events
    assert (event.kind, event.about) == ("autoscaled", "service/web")
    assert event.sentence.startswith("autoscaling: 2 -> 6 replicas: connections 300/s of 50/s")
    assert plan.wakes == (("web", cluster.now_ms + 5000),)


def test_that_a_new_service_keeps_its_count_is_no_event_but_a_sensor_that_fails_is(cluster: ModelCluster) -> None:
    plan = pass_over(cluster, load(cluster, 100.0))
    assert [document.wanted for document, _ in plan.scales] == [2]
    assert plan.events == ()
    (event,) = pass_over(cluster, Measured({"connections": Series(problem="it answers 503")})).events
    assert event.sentence == "autoscaling: 2 replicas: no fewer while connections are not known: it answers 503"


def test_a_second_pass_writes_nothing(cluster: ModelCluster) -> None:
    measured = load(cluster, 300.0)
    ((document, service),) = pass_over(cluster, measured).scales
    cluster.docs["services"]["web"] = service
    again = pass_over(cluster, measured, scales={"web": document})
    assert again.empty()
    assert again.wakes


def test_recommending_writes_the_document_and_leaves_the_service(cluster: ModelCluster) -> None:
    policy(cluster, replace(POLICY, mode="recommend"))
    ((document, service),) = pass_over(cluster, load(cluster, 300.0)).scales
    assert service is cluster.docs["services"]["web"]
    assert document.wanted == 6


def test_who_is_stopped_gone_or_without_policy_is_not_asked_again(cluster: ModelCluster) -> None:
    cluster.change("web", stopped=True)
    assert pass_over(cluster, load(cluster, 300.0)) == Plan()
    cluster.change("web", stopped=False)
    policy(cluster, None)
    assert pass_over(cluster, load(cluster, 300.0)) == Plan()
    assert decide_scaling(View(), ["web"], SETTINGS, 0, ServingCounts()) == Plan()


def test_what_belonged_to_an_earlier_service_of_the_name_does_not_count(cluster: ModelCluster) -> None:
    old = ScaleDoc("older", "web", 9, recommended=((cluster.now_ms + 100_000, 9),))
    order = ScaleOrderDoc("older", "web", "both", 15, cluster.now_ms + 100_000)
    ((document, service),) = pass_over(cluster, load(cluster, 300.0), scales={"web": old}, scale_orders={"web": order}).scales
    assert (service.scale, document.id) == (6, service.id)
    mine = replace(order, id=service.id, paused="")
    ((_, service),) = pass_over(cluster, load(cluster, 300.0), scale_orders={"web": mine}).scales
    assert service.scale == 15


def test_what_the_autoscaler_knew_goes_with_the_policy_and_with_the_service(cluster: ModelCluster) -> None:
    known: dict[str, Any] = {
        "scales": {"web": ScaleDoc("x", "web")}, "scale_orders": {"web": ScaleOrderDoc("x", "web")},
    }  # fmt: skip
    gone = (key("scaleorders", "web"), key("scales", "web"))
    assert decide_services(replace(cluster.view(), **known), ["web"], SETTINGS, cluster.now_ms).deletes == ()
    policy(cluster, None)
    assert decide_services(replace(cluster.view(), **known), ["web"], SETTINGS, cluster.now_ms).deletes == gone
    del cluster.docs["services"]["web"]
    deletes = decide_services(replace(cluster.view(), **known), ["web"], SETTINGS, cluster.now_ms).deletes
    assert set(gone) <= set(deletes)
    assert set(gone) <= set(decide_services(replace(View(), **known), None, SETTINGS, cluster.now_ms).deletes)


def serving(cluster: ModelCluster, counts: ServingCounts | None = None) -> tuple[int, int]:
    return (counts or ServingCounts()).of(cluster.view(), cluster.docs["services"]["web"])


def say(cluster: ModelCluster, slot: int, **what: Any) -> None:
    """What the agent of the replica's node says of it now."""
    for node, status in cluster.docs["status"].items():
        rows: tuple[ReplicaStatus, ...] = status.replicas
        changed = tuple(replace(row, **what) if row.slot == slot else row for row in rows)
        cluster.docs["status"][node] = replace(status, replicas=changed)


def test_who_serves_and_who_is_on_the_way(cluster: ModelCluster) -> None:
    counts = ServingCounts()
    assert serving(cluster, counts) == (2, 0)
    say(cluster, 1, state="starting")
    assert serving(cluster, counts) == (1, 1)
    say(cluster, 1, state="running", health="starting")
    assert serving(cluster, counts) == (1, 1)
    say(cluster, 1, state="starting", restarts=3)
    assert serving(cluster, counts) == (1, 0)
    say(cluster, 1, state="failed", restarts=0)
    assert serving(cluster, counts) == (1, 0)
    say(cluster, 1, state="running", health="healthy")
    cluster.change("web", scale=5)
    assert serving(cluster, counts) == (2, 3)
    assert serving(cluster) == serving(cluster, counts)


def test_who_waits_for_room_is_not_on_the_way(cluster: ModelCluster) -> None:
    doc: ServiceDoc = cluster.docs["services"]["web"]
    constraints = replace(doc.spec.placement, max_replicas_per_node=1)
    cluster.docs["services"]["web"] = replace(doc, scale=4, spec=replace(doc.spec, placement=constraints))
    cluster.converge()
    assert serving(cluster) == (2, 0)


def test_a_node_that_is_down_counts_for_nothing(cluster: ModelCluster) -> None:
    before = serving(cluster)
    health = cluster.docs["health"]["n1"]
    cluster.docs["health"]["n1"] = replace(health, state="down")
    ready, starting = serving(cluster)
    assert (before, ready, starting) == ((2, 0), 1, 1)


def test_of_a_crowded_node_the_least_busy_replica_goes_first(cluster: ModelCluster) -> None:
    cluster.change("web", scale=6)
    cluster.converge()
    by_node: dict[str, list[int]] = {}
    for node, doc in cluster.docs["assignments"].items():
        by_node[node] = [replica.slot for entry in doc.services for replica in entry.replicas]
    cluster.change("web", scale=4)
    idle = {node: slots[1] for node, slots in by_node.items()}
    busy = {slot: 7 for slots in by_node.values() for slot in slots if slot not in idle.values()}
    plan = decide_services(replace(cluster.view(), busy={"web": busy}), ["web"], SETTINGS, cluster.now_ms)
    left = {replica.slot for doc in plan.assignments for entry in doc.services for replica in entry.replicas}
    assert left == set(busy)
