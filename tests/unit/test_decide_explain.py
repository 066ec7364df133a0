"""Rows of replicas, counts, and the explanations."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.decide.explain import explain_node, explain_replica, explain_service
from controller.decide.replicas import Counts, counts, replica_rows
from model.errors import NotFound
from model.spec import ContainerSpec, Mount, Placement
from tests.scenarios.model_cluster import ModelCluster


@pytest.fixture
def cluster() -> ModelCluster:
    cluster = ModelCluster()
    for name in ("n1", "n2", "n3"):
        cluster.node(name)
    return cluster


def states(cluster: ModelCluster, service: str = "") -> list[tuple[str, str, str]]:
    return [(row.name, row.node, row.state) for row in replica_rows(cluster.view(), service=service)]


def count(cluster: ModelCluster, service: str) -> Counts:
    return counts(cluster.view(), cluster.docs["services"][service])


def test_a_replica_is_pending_then_assigned_then_what_its_agent_says(cluster: ModelCluster) -> None:
    cluster.service("web", 1)
    assert states(cluster) == [("web.1", "", "pending")]
    cluster.decide()
    assert states(cluster) == [("web.1", "n1", "assigned")]
    cluster.agents()
    assert states(cluster) == [("web.1", "n1", "running")]
    assert count(cluster, "web") == Counts(1, 1)


def test_names_follow_the_kind_of_service(cluster: ModelCluster) -> None:
    cluster.service("agent", mode="global")
    cluster.service("once", 1, single=True)
    cluster.converge()
    names = [row.name for row in replica_rows(cluster.view())]
    assert names == ["agent.n1", "agent.n2", "agent.n3", "once"]
    assert count(cluster, "agent") == Counts(3, 3)


def test_replicas_of_a_down_node_are_lost_and_no_longer_count(cluster: ModelCluster) -> None:
    cluster.service("web", 3)
    cluster.converge()
    cluster.lose("n2")
    assert ("web.2", "n2", "lost") in states(cluster)
    assert ("web.2", "", "pending") in states(cluster)
    assert count(cluster, "web") == Counts(2, 3)
    cluster.converge()
    assert [row[1:] for row in states(cluster) if row[0] == "web.2"] == [("n1", "running"), ("n2", "lost")]


def test_what_no_node_takes_is_pending_with_its_reason(cluster: ModelCluster) -> None:
    cluster.service("big", 2, cpus=100.0)
    cluster.converge()
    rows = replica_rows(cluster.view(), service="big")
    assert [(row.name, row.message) for row in rows] == [(f"big.{slot}", "3 nodes: not enough cpus") for slot in (1, 2)]


def test_what_is_not_wanted_any_more_shows_only_when_asked(cluster: ModelCluster) -> None:
    cluster.service("web", 2)
    cluster.converge()
    cluster.change("web", scale=1)
    cluster.decide()
    assert len(replica_rows(cluster.view(), service="web")) == 1
    assert [row.desired for row in replica_rows(cluster.view(), service="web", ended=True)] == ["running", "shutdown"]


def test_filters_by_stack_and_node(cluster: ModelCluster) -> None:
    cluster.service("shop_web", 3, stack="shop")
    cluster.service("other", 3)
    cluster.converge()
    assert {row.service for row in replica_rows(cluster.view(), stack="shop")} == {"shop_web"}
    assert {row.node for row in replica_rows(cluster.view(), node="n2")} == {"n2"}


def test_a_service_is_explained(cluster: ModelCluster) -> None:
    cluster.node("n3", availability="drain")
    cluster.service("web", 5, cpus=1.0, placement=Placement(max_replicas_per_node=2))
    cluster.converge()
    told = explain_service(cluster.view(), "web", cluster.settings, cluster.now_ms)
    assert told.sentence.startswith("web: 4 of 5 running; 4 replicas placed: 2 on n1, 2 on n2; 1 replica waits: 2 nodes: has 2")
    assert "5 replicas wanted: as the file says" in told.lines
    assert "placement: at most 2 per node" in told.lines
    assert "not on n1, n2: has 2 of at most 2 replicas per node" in told.lines
    assert "not on n3: drained" in told.lines


def test_a_replica_is_explained(cluster: ModelCluster) -> None:
    cluster.service("web", 1)
    cluster.converge()
    told = explain_replica(cluster.view(), "web.1", cluster.settings, cluster.now_ms)
    assert told.sentence == "web.1 is running on n1"
    assert any(line.startswith("could also run on n2 (0 of this service, 0 in all") for line in told.lines)
    assert not any("n1 (" in line for line in told.lines)  # where it is, is no "also"
    with pytest.raises(NotFound):
        explain_replica(cluster.view(), "web.2", cluster.settings, cluster.now_ms)


def test_a_replica_is_bound_to_its_volume(cluster: ModelCluster) -> None:
    cluster.volume("data")
    cluster.service("db", 1, container=ContainerSpec("db:1", mounts=(Mount("volume", "/d", "data"),)))
    cluster.converge()
    told = explain_replica(cluster.view(), "db.1", cluster.settings, cluster.now_ms)
    assert any(line == "not on n2, n3: volume data is on n1" for line in told.lines), told


def test_a_node_is_explained(cluster: ModelCluster) -> None:
    cluster.docs["nodes"]["n1"] = replace(cluster.docs["nodes"]["n1"], availability="pause")
    cluster.service("web", 4, cpus=0.5)
    cluster.converge()
    told = explain_node(cluster.view(), "n2")
    assert told.sentence == "n2 is ready and takes replicas"
    assert "2 replicas of 1 service" in told.lines
    assert "reserved: 1 of 4 cpus, 0 MiB of 8,192 MiB memory" in told.lines
    assert "is paused" in explain_node(cluster.view(), "n1").sentence


def test_a_service_says_which_bytes_it_runs_and_why_some_do_not_start(cluster: ModelCluster) -> None:
    cluster.service("web", 2, container=ContainerSpec("web:1", image_digest="sha256:1"))
    cluster.converge()
    status = cluster.docs["status"]["n1"]
    refused = [replace(row, state="rejected", message="no: `shoal login here:5000`") for row in status.replicas]
    cluster.docs["status"]["n1"] = replace(status, replicas=tuple(refused))
    lines = explain_service(cluster.view(), "web", cluster.settings, cluster.now_ms).lines
    assert "1 replica cannot start: no: `shoal login here:5000`" in lines
    assert "image: web:1@sha256:1" in lines
