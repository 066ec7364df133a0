"""What decide_services does, case by case, on the model cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model.documents import Event
from model.spec import ContainerSpec, Mount, Placement, RestartPolicy
from tests.scenarios.model_cluster import INFO, ModelCluster


@pytest.fixture
def cluster() -> ModelCluster:
    cluster = ModelCluster()
    for name in ("n1", "n2", "n3"):
        cluster.node(name)
    return cluster


def sentences(events: tuple[Event, ...]) -> list[str]:
    return [event.sentence for event in events]


def with_volume(name: str) -> ContainerSpec:
    return ContainerSpec("db", mounts=(Mount("volume", "/data", name),))


def test_a_service_is_placed_and_says_so(cluster: ModelCluster) -> None:
    cluster.service("web", 5)
    plan = cluster.decide(["web"])
    assert cluster.counts("web") == {"n1": 2, "n2": 2, "n3": 1}
    assert sentences(plan.events) == ["5 replicas placed: 2 on n1, 2 on n2, 1 on n3"]
    assert all(doc.generation == 1 for doc in plan.assignments)
    assert cluster.decide(["web"]).empty()


def test_of_hundreds_of_lost_nodes_a_sentence_tells_some(cluster: ModelCluster) -> None:
    lost = [f"x{number}" for number in range(300)]
    for name in lost:
        cluster.node(name)
    cluster.service("web", 1200)
    cluster.converge()
    cluster.kill(*lost[:140])
    cluster.expire()
    (moved,) = [text for text in sentences(cluster.decide().events) if "down" in text]
    assert moved.endswith("and 130 more")
    assert len(moved) < 2000
    assert max(len(event.sentence) for event in cluster.docs["decisions"]["web"].sentences) < 2000


def test_scaling_in_takes_what_does_not_run_then_the_crowded_node_then_the_youngest(cluster: ModelCluster) -> None:
    cluster.service("web", 4)
    cluster.converge()
    cluster.now_ms += 1000
    cluster.change("web", scale=6)
    cluster.decide()
    assert cluster.counts("web") == {"n1": 2, "n2": 2, "n3": 2}
    cluster.change("web", scale=5)
    plan = cluster.decide()
    assert sentences(plan.events) == ["scaled in to 5 replicas: removed web.6 (n3)"]
    cluster.agents()
    cluster.change("web", scale=3)
    cluster.decide()
    assert cluster.counts("web") == {"n1": 1, "n2": 1, "n3": 1}
    cluster.change("web", scale=5)
    cluster.decide()
    assert list(cluster.where("web")) == [1, 2, 3, 4, 5]


def test_scale_to_zero_removes_all_and_places_nothing(cluster: ModelCluster) -> None:
    cluster.service("web", 3)
    cluster.converge()
    cluster.change("web", scale=0)
    cluster.converge()
    assert cluster.where("web") == {}


def test_replicas_of_a_lost_node_move_and_its_document_keeps_them(cluster: ModelCluster) -> None:
    cluster.service("web", 6)
    cluster.converge()
    before = cluster.docs["assignments"]["n2"]
    others = {row for row in cluster.containers("web") if row[0] != "n2"}
    cluster.lose("n2")
    plan = cluster.decide()
    assert sentences(plan.events) == ["n2 is down: 2 replicas started: 1 on n1, 1 on n3"]
    assert cluster.docs["assignments"]["n2"] == before
    cluster.converge()
    assert cluster.counts("web") == {"n1": 3, "n3": 3}
    assert others <= cluster.containers("web")


def test_a_node_that_was_only_cut_off_keeps_its_older_replicas(cluster: ModelCluster) -> None:
    cluster.service("web", 6)
    cluster.converge()
    original = cluster.containers("web")
    cluster.cut("n2")
    cluster.expire()
    cluster.converge()
    cluster.back("n2")
    cluster.decide_nodes()
    plan = cluster.decide()
    assert plan.events[0].kind == "trimmed"
    cluster.converge()
    assert cluster.containers("web") == original


def test_a_rebooted_node_gives_way_to_the_replicas_that_run(cluster: ModelCluster) -> None:
    cluster.service("web", 6)
    cluster.converge()
    cluster.lose("n2")
    cluster.converge()
    running = cluster.containers("web")
    cluster.back("n2")
    cluster.decide_nodes()
    cluster.decide()
    assert cluster.counts("web") == {"n1": 3, "n3": 3}
    cluster.converge()
    assert cluster.containers("web") == running


def test_draining_starts_elsewhere_first(cluster: ModelCluster) -> None:
    cluster.service("web", 3)
    cluster.converge()
    cluster.node("n2", availability="drain")
    plan = cluster.decide()
    assert sentences(plan.events) == ["n2 is drained: web.2 started on n1"]
    assert cluster.where("web")[2] == ["n1", "n2"]
    cluster.agents()
    assert sentences(cluster.decide().events) == ["web.2 (n2) removed: the successor runs"]
    cluster.converge()
    assert cluster.counts("web") == {"n1": 2, "n3": 1}


def test_what_cannot_move_off_a_drained_node_stays_and_says_why(cluster: ModelCluster) -> None:
    cluster.service("web", 3, cpus=3.0)
    cluster.converge()
    cluster.node("n2", availability="drain")
    cluster.decide()
    assert cluster.counts("web") == {"n1": 1, "n2": 1, "n3": 1}
    assert cluster.docs["decisions"]["web"].notes == (
        "web.2 stays on n2 (n2 is drained): 2 nodes: not enough cpus; 1 node: drained",
    )
    assert cluster.decide().empty()


def test_a_paused_node_gets_nothing_new(cluster: ModelCluster) -> None:
    cluster.node("n1", availability="pause")
    cluster.service("web", 4)
    cluster.converge()
    assert cluster.counts("web") == {"n2": 2, "n3": 2}


def test_a_volume_holds_its_service_on_one_node(cluster: ModelCluster) -> None:
    cluster.volume("data")
    cluster.service("db", 2, container=with_volume("data"))
    cluster.converge()
    assert cluster.counts("db") == {"n1": 2}
    assert cluster.docs["places"]["data"].nodes == ("n1",)
    cluster.lose("n1")
    plan = cluster.decide()
    assert sentences(plan.events) == ["2 replicas wait: volume data is on n1, which is down"]
    assert cluster.where("db") == {}
    assert cluster.decide().empty()


def test_a_drained_volume_node_stops_its_replica_which_waits(cluster: ModelCluster) -> None:
    cluster.service("db", 1, container=with_volume("data"))
    cluster.converge()
    cluster.node("n1", availability="drain")
    cluster.converge()
    assert cluster.where("db") == {}
    assert cluster.docs["decisions"]["db"].waiting == ((1, "volume data is on n1, which is drained"),)
    cluster.node("n1")
    cluster.converge()
    assert cluster.counts("db") == {"n1": 1}


def test_two_volumes_on_two_nodes_are_refused(cluster: ModelCluster) -> None:
    cluster.service("a", 1, container=with_volume("a"))
    cluster.service("b", 1, container=with_volume("b"))
    cluster.converge()
    cluster.service("c", 1, container=ContainerSpec("x", mounts=(Mount("volume", "/a", "a"), Mount("volume", "/b", "b"))))
    cluster.decide()
    assert cluster.docs["decisions"]["c"].waiting == ((1, "volume a is on n1, volume b on n2"),)


def test_a_network_file_system_ties_nothing(cluster: ModelCluster) -> None:
    cluster.volume("share", options=(("type", "nfs"),))
    cluster.service("web", 3, container=with_volume("share"))
    cluster.converge()
    assert cluster.counts("web") == {"n1": 1, "n2": 1, "n3": 1}


def test_global_services_run_on_every_eligible_node(cluster: ModelCluster) -> None:
    cluster.service("agent", mode="global", placement=Placement(constraints=("node.hostname!=n3",)))
    cluster.converge()
    assert cluster.counts("agent") == {"n1": 1, "n2": 1}
    cluster.node("n4")
    assert sentences(cluster.decide().events) == ["agent.n4 placed on n4"]
    cluster.node("n1", availability="drain")
    cluster.converge()
    assert cluster.counts("agent") == {"n2": 1, "n4": 1}
    cluster.lose("n2")
    assert cluster.decide().empty()


def test_global_services_say_where_there_is_no_room(cluster: ModelCluster) -> None:
    cluster.node("n4", replace(INFO, memory_bytes=1 << 20))
    cluster.service("agent", mode="global", memory=1 << 30)
    cluster.converge()
    assert cluster.docs["decisions"]["agent"].waiting == ((0, "1 node: not enough memory"),)


def test_a_job_runs_to_completion_and_is_not_started_again(cluster: ModelCluster) -> None:
    cluster.service("job", 2, mode="replicated-job")
    cluster.converge()
    cluster.finish("job")
    cluster.agents()
    cluster.lose("n1")
    assert cluster.decide().empty()


def test_a_container_with_rm_goes_when_it_has_ended(cluster: ModelCluster) -> None:
    once = ContainerSpec("busybox", restart=RestartPolicy("none"))
    cluster.service("once", 1, single=True, auto_remove=True, container=once)
    cluster.converge()
    cluster.finish("once", 3)
    cluster.agents()
    plan = cluster.decide()
    assert plan.wake_at_ms == cluster.now_ms + 3000
    cluster.pass_time(3000)
    assert sentences(cluster.decide().events) == ["once ended with exit code 3 and is removed, as --rm asks"]
    assert "once" not in cluster.docs["services"]
    assert cluster.decide().empty()


def test_a_removed_service_leaves_nothing(cluster: ModelCluster) -> None:
    cluster.service("web", 3)
    cluster.converge()
    cluster.lose("n3")
    del cluster.docs["services"]["web"]
    plan = cluster.decide(["web"])
    assert sentences(plan.events) == ["web is removed with its 3 replicas"]
    assert not any(doc.services for doc in cluster.docs["assignments"].values())
    assert "web" not in cluster.docs["decisions"]


def test_a_removed_node_leaves_nothing_and_its_replicas_move(cluster: ModelCluster) -> None:
    cluster.network("shop_default")
    cluster.service("web", 3, networks=("shop_default",))
    cluster.converge()
    del cluster.docs["nodes"]["n2"]
    plan = cluster.decide(["other"])
    assert sentences(plan.events) == ["n2 was removed: web.2 started on n1"]
    assert "n2" not in {*cluster.docs["assignments"], *cluster.docs["status"], *cluster.docs["health"]}
    assert [node for node, _ in cluster.docs["netplans"]["shop_default"].slices] == ["n1", "n3"]


def test_a_stopped_service_keeps_its_assignments(cluster: ModelCluster) -> None:
    cluster.service("web", 2)
    cluster.converge()
    cluster.change("web", stopped=True)
    assert cluster.decide().empty()
    cluster.lose("n1")
    assert cluster.decide().empty()


def test_networks_get_a_plan_and_each_used_node_a_slice(cluster: ModelCluster) -> None:
    cluster.network("shop_default")
    cluster.service("web", 2, networks=("shop_default", "host"))
    cluster.converge()
    plan = cluster.docs["netplans"]["shop_default"]
    assert (plan.vni, plan.subnet) == (4097, "10.0.0.0/16")
    assert plan.slices == (("n1", "10.0.0.0/24"), ("n2", "10.0.1.0/24"))
    del cluster.docs["services"]["web"], cluster.docs["networks"]["shop_default"]
    cluster.converge()
    assert cluster.docs["netplans"] == {}


def test_a_missing_network_is_a_reason_to_wait(cluster: ModelCluster) -> None:
    cluster.service("web", 2, networks=("nowhere",))
    plan = cluster.decide()
    assert sentences(plan.events) == ["2 replicas wait: network nowhere does not exist"]
    assert cluster.decide().empty()


def test_freed_room_goes_to_those_who_wait(cluster: ModelCluster) -> None:
    cluster.service("big", 3, cpus=4.0)
    cluster.converge()
    cluster.service("late", 1, cpus=1.0)
    cluster.converge()
    assert cluster.docs["decisions"]["late"].waiting == ((1, "3 nodes: not enough cpus"),)
    cluster.change("big", scale=2)
    cluster.decide(["big"])
    assert cluster.counts("late") == {"n3": 1}
    assert cluster.docs["decisions"]["late"].waiting == ()


def test_a_node_without_disk_is_left_after_a_while(cluster: ModelCluster) -> None:
    cluster.service("web", 1)
    cluster.broken.add(("web", 1))
    cluster.converge()
    key, row = next(iter(cluster.running["n1"].items()))
    cluster.running["n1"][key] = replace(row, message="disk full: /var/lib/shoal has 1 MB left")
    cluster.agents()
    plan = cluster.decide()
    assert plan.empty()
    assert plan.wake_at_ms is not None
    cluster.pass_time(60_000)
    assert sentences(cluster.decide().events) == ["disk of n1 is full: web.1 started on n2"]


def test_a_service_recreated_under_its_name_starts_anew(cluster: ModelCluster) -> None:
    cluster.service("web", 2)
    cluster.converge()
    cluster.change("web", id="id-new")
    cluster.converge()
    ids = {entry.service_id for doc in cluster.docs["assignments"].values() for entry in doc.services}
    assert ids == {"id-new"}


def test_when_slices_are_short_the_nodes_that_have_one_are_used_in_the_first_pass(cluster: ModelCluster) -> None:
    cluster.network("small", "10.9.0.0/29")
    cluster.service("web", 6, networks=("small",))
    cluster.service("agent", mode="global", networks=("small",))
    cluster.decide()
    assert cluster.decide().empty()
    assert cluster.counts("web") == {"n1": 3, "n2": 3}
    assert cluster.counts("agent") == {"n1": 1, "n2": 1}
    why = "1 node: network small: its subnet 10.9.0.0/29 has no free slice left for another node"
    assert cluster.docs["decisions"]["agent"].waiting == ((0, f"{why}: one takes 4 addresses, a larger subnet has more"),)


def test_slices_go_where_there_is_room_after_the_pass(cluster: ModelCluster) -> None:
    for number in (3, 4):
        cluster.node(f"n{number}")
    cluster.network("small", "10.9.0.0/29")
    cluster.service("big", 2, cpus=3.0, placement=Placement(constraints=("node.hostname!=n3", "node.hostname!=n4")))
    cluster.service("web", 1, cpus=3.0, networks=("small",))
    cluster.decide()
    assert cluster.decide().empty()
    assert len(cluster.where("web")) == 1


def test_failing_replicas_of_one_slot_are_reduced_to_the_oldest(cluster: ModelCluster) -> None:
    cluster.broken.add(("web", 1))
    cluster.service("web", 1)
    cluster.converge()
    cluster.cut("n1")
    cluster.expire()
    cluster.converge()
    cluster.back("n1")
    cluster.decide_nodes()
    cluster.converge()
    assert cluster.where("web") == {1: ["n1"]}


def test_replicas_move_when_their_node_no_longer_meets_a_constraint(cluster: ModelCluster) -> None:
    cluster.node("n1", labels=(("zone", "a"),))
    cluster.service("web", 2, placement=Placement(constraints=("node.labels.zone==a",)))
    cluster.converge()
    assert cluster.counts("web") == {"n1": 2}
    cluster.node("n1")
    cluster.node("n2", labels=(("zone", "a"),))
    plan = cluster.decide()
    assert sentences(plan.events) == ["n1: constraint node.labels.zone==a not met: 2 replicas started: 2 on n2"]
    cluster.converge()
    assert cluster.counts("web") == {"n2": 2}


def test_scale_in_prefers_what_is_not_healthy(cluster: ModelCluster) -> None:
    cluster.service("web", 3)
    cluster.converge()
    key, row = next(iter(cluster.running["n1"].items()))
    cluster.running["n1"][key] = replace(row, health="unhealthy")
    cluster.agents()
    cluster.change("web", scale=2)
    cluster.decide()
    assert cluster.counts("web") == {"n2": 1, "n3": 1}
