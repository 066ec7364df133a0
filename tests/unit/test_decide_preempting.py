"""Preemption in decisions, case by case, on the model cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.decide import placing
from controller.decide.explain import explain_replica, explain_service
from controller.decide.preview import Placed, Waits, preview
from controller.decide.stacks import diff_stack
from controller.decide.types import Preempted
from model.spec import (
    Attachment,
    ContainerSpec,
    Mount,
    Placement,
    Port,
    Resources,
    RestartPolicy,
    ServiceSpec,
    StackSpec,
    UpdateConfig,
)
from tests.scenarios.model_cluster import ModelCluster


@pytest.fixture
def cluster() -> ModelCluster:
    """Two nodes of 4 cpus."""
    cluster = ModelCluster()
    for name in ("n1", "n2"):
        cluster.node(name)
    return cluster


def test_the_lower_one_makes_room_and_says_so(cluster: ModelCluster) -> None:
    cluster.service("batch", 4, cpus=2.0)
    cluster.converge()
    cluster.service("web", 1, cpus=2.0, priority=10)
    plan = cluster.decide(["web"])
    assert plan.preempted == (Preempted("batch.3", "batch", 3, "n1", "web.1", "not enough cpus"),)
    told = [(event.about, event.kind, event.sentence) for event in plan.events]
    assert told == [
        ("service/web", "placed", "web.1 placed on n1; batch.3 on n1 made room"),
        (
            "service/batch", "preempted",
            "batch.3 on n1 was stopped to make room for web.1 (priority 10 over 0): not enough cpus; "
            "1 replica waits: 2 nodes: not enough cpus",
        ),
    ]  # fmt: skip
    assert cluster.where("web") == {1: ["n1"]}
    assert cluster.docs["decisions"]["batch"].waiting == ((3, "preempted by web.1 on n1: 2 nodes: not enough cpus"),)
    assert explain_replica(cluster.view(), "batch.3", cluster.settings, cluster.now_ms).sentence == (
        "batch.3 waits for a node: preempted by web.1 on n1: 2 nodes: not enough cpus"
    )
    assert "priority 10" in explain_service(cluster.view(), "web", cluster.settings, cluster.now_ms).lines
    assert cluster.decide().empty()
    assert cluster.decide(["batch"]).empty()


def test_the_victim_goes_elsewhere_when_there_is_room(cluster: ModelCluster) -> None:
    cluster.service("batch", 2, cpus=1.0, placement=Placement(("node.hostname==n1",)))
    cluster.converge()
    cluster.change("batch", spec=replace(cluster.docs["services"]["batch"].spec, placement=Placement()))
    cluster.service("web", 1, cpus=4.0, priority=1, placement=Placement(("node.hostname==n1",)))
    plan = cluster.decide(["web"])
    assert cluster.where("web") == {1: ["n1"]}
    assert cluster.where("batch") == {1: ["n2"], 2: ["n2"]}
    assert "stopped for web: 2 replicas started: 2 on n2" in plan.events[1].sentence
    assert not cluster.docs["decisions"]["batch"].waiting


def test_who_was_stopped_comes_back_under_its_number(cluster: ModelCluster) -> None:
    cluster.service("batch", 4, cpus=2.0)
    cluster.converge()
    cluster.service("web", 3, cpus=2.0, priority=10)
    cluster.converge()
    assert list(cluster.where("batch")) == [2]
    assert [slot for slot, _ in cluster.docs["decisions"]["batch"].waiting] == [1, 3, 4]
    cluster.change("web", scale=1)
    cluster.converge()
    assert list(cluster.where("batch")) == [1, 2, 3]
    assert [slot for slot, _ in cluster.docs["decisions"]["batch"].waiting] == [4]


def test_equals_and_global_services_are_left_alone(cluster: ModelCluster) -> None:
    cluster.service("same", 1, cpus=3.0, priority=10)
    cluster.service("agent", mode="global", cpus=1.0)
    cluster.converge()
    cluster.service("web", 2, cpus=4.0, priority=10)
    plan = cluster.decide()
    assert plan.preempted == ()
    assert cluster.where("web") == {}


def test_a_global_service_may_ask_for_room(cluster: ModelCluster) -> None:
    cluster.service("batch", 4, cpus=2.0)
    cluster.converge()
    cluster.service("agent", mode="global", cpus=1.0, priority=10)
    plan = cluster.decide()
    assert sorted(row.by for row in plan.preempted) == ["agent.n1", "agent.n2"]
    assert cluster.where("agent") == {0: ["n1", "n2"]}


def test_a_finished_job_is_not_run_again(cluster: ModelCluster) -> None:
    never = ContainerSpec("x", restart=RestartPolicy("none"))
    cluster.service("job", 4, cpus=2.0, mode="replicated-job", container=never)
    cluster.converge()
    cluster.finish("job")
    cluster.agents()
    cluster.converge()
    cluster.service("web", 1, cpus=2.0, priority=10)
    assert cluster.decide().preempted == ()


def test_a_port_of_the_node_is_made_free(cluster: ModelCluster) -> None:
    ports = ContainerSpec("x", ports=(Port(80, 80, mode="host"),))
    cluster.service("old", 2, container=ports)
    cluster.service("beside", 4)
    cluster.converge()
    cluster.service("new", 1, container=ports, priority=1)
    plan = cluster.decide()
    assert [(row.replica, row.why) for row in plan.preempted] == [("old.1", "port 80/tcp is taken on the node")]
    assert cluster.decide().empty()


def test_a_port_that_somebody_else_has_too_is_not(cluster: ModelCluster) -> None:
    tcp, udp = Port(80, 80, mode="host"), Port(53, 53, "udp", mode="host")
    cluster.service("high", 2, container=ContainerSpec("x", ports=(udp,)), priority=5)
    cluster.service("low", 2, container=ContainerSpec("x", ports=(tcp,)))
    cluster.converge()
    cluster.service("new", 1, container=ContainerSpec("x", ports=(tcp, udp)), priority=5)
    assert cluster.decide().preempted == ()


def test_only_the_node_of_the_volume_is_asked(cluster: ModelCluster) -> None:
    cluster.volume("data")
    mounts = ContainerSpec("x", mounts=(Mount("volume", "/d", "data"),))
    cluster.service("db", 1, cpus=1.0, container=mounts, priority=3)
    cluster.converge()
    (node,) = cluster.where("db")[1]
    cluster.change("db", scale=0)
    cluster.converge()
    cluster.service("batch", 8, cpus=1.0)
    cluster.converge()
    cluster.change("db", scale=2)
    plan = cluster.decide()
    assert {row.node for row in plan.preempted} == {node}
    assert cluster.where("db") == {1: [node], 2: [node]}


def test_a_drained_one_may_ask_a_replacement_may_not(cluster: ModelCluster) -> None:
    cluster.service("web", 1, cpus=2.0, priority=5, update=UpdateConfig(order="start-first"))
    cluster.converge()
    cluster.service("batch", 3, cpus=2.0)
    cluster.converge()
    cluster.pass_time(60_000)
    cluster.change("web", version=2)
    assert cluster.decide().preempted == (), "the old one runs; nobody is stopped for a second one beside it"
    (node,) = cluster.where("web")[1]
    cluster.docs["nodes"][node] = replace(cluster.docs["nodes"][node], availability="drain")
    plan = cluster.decide()
    assert [row.by for row in plan.preempted] == ["web.1"]


def test_who_comes_to_be_of_less_priority_gives_way(cluster: ModelCluster) -> None:
    cluster.service("batch", 4, cpus=2.0, priority=10)
    cluster.converge()
    cluster.service("web", 1, cpus=2.0, priority=5)
    cluster.decide(["web"])
    cluster.agents()
    cluster.change("batch", spec=replace(cluster.docs["services"]["batch"].spec, priority=0))
    assert [row.by for row in cluster.decide(["batch"]).preempted] == ["web.1"]


def test_a_stopped_service_keeps_its_place_only_till_somebody_needs_it(cluster: ModelCluster) -> None:
    cluster.service("batch", 4, cpus=2.0)
    cluster.converge()
    cluster.change("batch", stopped=True)
    cluster.service("web", 1, cpus=4.0, priority=1)
    assert len(cluster.decide().preempted) == 2
    assert cluster.decide().empty()
    cluster.change("batch", stopped=False)
    cluster.converge()
    assert len(cluster.where("batch")) == 2


def test_what_one_pass_may_stop_is_bounded_and_the_next_goes_on(
    cluster: ModelCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "VICTIMS_MAX", 3)
    cluster.service("batch", 8, cpus=1.0)
    cluster.converge()
    cluster.service("web", 5, cpus=1.0, priority=1)
    plan = cluster.decide()
    assert len(plan.preempted) == 3
    assert plan.wakes == (("web", cluster.now_ms + placing.GO_ON_MS),)
    cluster.converge()
    assert len(cluster.where("web")) == 5


def test_a_network_that_is_full_there_stops_nobody(cluster: ModelCluster) -> None:
    cluster.service("batch", 4, cpus=2.0)
    cluster.converge()
    cluster.service("web", 1, cpus=2.0, priority=5, container=ContainerSpec("x", networks=(Attachment("nowhere"),)))
    assert cluster.decide().preempted == ()


def test_the_preview_names_who_would_be_stopped(cluster: ModelCluster) -> None:
    cluster.service("batch", 4, cpus=2.0)
    cluster.converge()
    stack = StackSpec("shop", (ServiceSpec("shop_web", ContainerSpec("x"), "shop", reservations=Resources(2.0), priority=10),))
    changes = diff_stack(cluster.view(), stack, lambda: "id", cluster.now_ms)
    shown = preview(cluster.view(), changes, cluster.settings, cluster.now_ms)
    assert shown.placements == (Placed("shop_web.1", "n1", "new; stopped for it: batch.3"),)
    assert shown.waiting == (Waits("batch.3", "preempted by shop_web.1 on n1: 2 nodes: not enough cpus"),)
