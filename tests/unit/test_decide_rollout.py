"""Rollouts, case by case on the model cluster; also of replicas that never started, which a change of leader leaves behind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.decide.standing import Held, settle
from model.documents import Assigned, ReplicaStatus
from model.spec import UpdateConfig
from tests.scenarios.model_cluster import ModelCluster


def made(*nodes: str) -> ModelCluster:
    cluster = ModelCluster()
    for name in nodes:
        cluster.node(name)
    return cluster


@pytest.fixture
def cluster() -> ModelCluster:
    return made("n1", "n2", "n3")


def versions(cluster: ModelCluster) -> list[int]:
    documents = cluster.docs["assignments"].values()
    return sorted(row.version for doc in documents for entry in doc.services for row in entry.replicas)


def test_outdated_replicas_that_nobody_reported_are_replaced_in_one_pass() -> None:
    cluster = made("n1", "n2")
    cluster.service("web", 6)
    cluster.decide()
    cluster.service("web", 6, version=2)
    cluster.decide()
    assert versions(cluster) == [2] * 6
    assert cluster.decide().empty()


def test_they_count_as_moving_so_that_no_more_than_wanted_run_is_touched() -> None:
    cluster = made("n1", "n2")
    cluster.service("web", 3)
    cluster.converge()
    before = cluster.containers("web")
    cluster.change("web", scale=5)
    cluster.decide()  # two more of version 1, which no agent has taken yet
    cluster.pass_time(60_000)
    cluster.docs["services"].pop("web")
    cluster.service("web", 5, version=2)
    cluster.decide()
    assert versions(cluster) == [1, 1, 1, 2, 2]
    assert cluster.decide().empty()
    cluster.agents()
    assert before <= cluster.containers("web")
    cluster.converge()
    assert versions(cluster) == [2] * 5


def test_a_paused_rollout_still_replaces_what_never_started() -> None:
    cluster = made("n1", "n2")
    cluster.service("web", 3)
    cluster.converge()
    cluster.pass_time(60_000)
    cluster.broken.add(("web", 2))
    cluster.service("web", 3, version=2)
    cluster.converge()
    assert versions(cluster) == [1, 1, 2]
    node = next(name for name, rows in cluster.running.items() if any(row.version == 1 for row in rows.values()))
    cluster.running[node] = {key: row for key, row in cluster.running[node].items() if row.version != 1}
    cluster.back(node)  # a machine set up anew: it has never heard of what it should run
    cluster.decide()
    assert versions(cluster).count(1) < 2


def test_a_new_version_is_rolled_out_in_place_one_by_one(cluster: ModelCluster) -> None:
    cluster.service("web", 3)
    cluster.converge()
    where = cluster.where("web")
    cluster.pass_time(60_000)
    cluster.service("web", 3, version=2)
    plan = cluster.decide()
    assert [event.sentence for event in plan.events] == ["update to version 2: replaced web.1 (n1); 2 replicas left"]
    cluster.agents()
    plan = cluster.decide()
    assert plan.empty()
    assert plan.wake_at_ms == cluster.now_ms + 1000
    cluster.converge()
    assert cluster.where("web") == where
    assert all(row.version == 2 for rows in cluster.running.values() for row in rows.values())


def test_start_first_runs_the_new_one_before_the_old_one_goes(cluster: ModelCluster) -> None:
    update = UpdateConfig(order="start-first")
    cluster.service("web", 1, update=update)
    cluster.converge()
    cluster.pass_time(60_000)
    cluster.service("web", 1, version=2, update=update)
    cluster.decide()
    assert cluster.where("web") == {1: ["n1", "n1"]}
    cluster.converge()
    assert cluster.where("web") == {1: ["n1"]}


def test_a_version_that_fails_pauses_the_rollout(cluster: ModelCluster) -> None:
    cluster.service("web", 3)
    cluster.converge()
    cluster.pass_time(60_000)
    cluster.broken.add(("web", 2))
    cluster.service("web", 3, version=2)
    cluster.converge()
    assert len(cluster.containers("web")) == 2
    assert cluster.docs["decisions"]["web"].notes == ("update to version 2 is paused: its replica on n1 does not stay up",)
    cluster.service("web", 3, version=3)
    cluster.converge()
    assert len(cluster.containers("web")) == 3


def test_a_rollout_that_may_continue_does_in_spite_of_failures(cluster: ModelCluster) -> None:
    update = UpdateConfig(failure_action="continue")
    cluster.service("web", 3, update=update)
    cluster.converge()
    cluster.pass_time(60_000)
    cluster.broken.add(("web", 2))
    cluster.service("web", 3, version=2, update=update)
    cluster.converge()
    assert {row.version for rows in cluster.running.values() for row in rows.values()} == {2}


def test_an_outdated_replica_that_is_spent_waits_for_no_successor_that_fails_too(cluster: ModelCluster) -> None:
    update = UpdateConfig(failure_action="continue", order="start-first")
    cluster.service("web", 1, update=update)
    cluster.converge()
    cluster.broken |= {("web", 1), ("web", 2)}
    cluster.agents()
    cluster.service("web", 1, version=2, update=update)
    cluster.decide()
    cluster.agents()
    cluster.decide()
    assert len(cluster.where("web")[1]) == 2, "the old one may be tried again"
    cluster.converge()
    rows = [entry.replicas for doc in cluster.docs["assignments"].values() for entry in doc.services]
    assert [replica.version for replicas in rows for replica in replicas] == [2]


@pytest.mark.parametrize(("state", "kept"), [("running", 2), ("preparing", 2), (None, 1)])
def test_beside_a_successor_that_has_failed_an_old_one_is_kept_that_somebody_has_seen(state: str | None, kept: int) -> None:
    """Found by the simulation: one that no agent has ever told of stood there for ever, and nothing ran."""
    old = ReplicaStatus("id-web", 1, 1, 1, state) if state else None
    failed = ReplicaStatus("id-web", 1, 2, 2, "failed")
    holders = [
        Held("n1", Assigned(1, 1, 1), old, ok=False, current=False),
        Held("n2", Assigned(1, 2, 2), failed, ok=False, current=True, spent=True),
    ]
    standing = settle([(1, holders)])
    assert (standing.slots[1].primary.node, len(standing.slots[1].holders)) == ("n2", kept)
    assert [held.node for held in standing.surplus] == ["n1"] * (2 - kept)


def test_an_agents_wrong_clock_does_not_hold_a_rollout_up(cluster: ModelCluster) -> None:
    cluster.service("web", 2)
    cluster.converge()
    cluster.pass_time(60_000)
    cluster.service("web", 2, version=2)
    cluster.decide()
    cluster.agents()
    key, row = next(iter(cluster.running["n1"].items()))
    cluster.running["n1"][key] = replace(row, since_ms=cluster.now_ms + 3_600_000)
    cluster.agents()
    plan = cluster.decide()
    assert plan.wake_at_ms == cluster.now_ms + 1000


def health(cluster: ModelCluster, version: int, word: str) -> None:
    for rows in cluster.running.values():
        for key, row in rows.items():
            if row.version == version:
                rows[key] = replace(row, health=word, since_ms=cluster.now_ms)
    cluster.agents()


def test_the_next_one_is_replaced_only_when_the_new_one_runs_and_is_healthy(cluster: ModelCluster) -> None:
    cluster.service("web", 3)
    cluster.converge()
    cluster.pass_time(60_000)
    cluster.service("web", 3, version=2)
    cluster.decide()
    assert versions(cluster) == [1, 1, 2]
    cluster.pass_time(60_000)
    assert cluster.decide().empty()  # its agent has not said anything of it yet
    cluster.agents()
    health(cluster, 2, "starting")
    cluster.pass_time(60_000)
    assert cluster.decide().empty()
    health(cluster, 2, "unhealthy")
    cluster.pass_time(60_000)
    assert cluster.decide().empty()
    health(cluster, 2, "healthy")
    cluster.pass_time(60_000)
    cluster.decide()
    assert versions(cluster) == [1, 2, 2]


def test_one_that_is_not_healthy_is_replaced_before_those_that_are(cluster: ModelCluster) -> None:
    cluster.service("web", 3)
    cluster.converge()
    (key, row), *_ = cluster.running["n3"].items()
    cluster.running["n3"][key] = replace(row, health="unhealthy")
    cluster.agents()
    cluster.pass_time(60_000)
    cluster.service("web", 3, version=2)
    plan = cluster.decide()
    assert [doc.node for doc in plan.assignments] == ["n3"]


@pytest.mark.parametrize("availability", ["pause", "drain"])
def test_a_global_replica_that_cannot_be_replaced_does_not_hold_the_others_up(cluster: ModelCluster, availability: str) -> None:
    """Its node is paused, or drained while its job there is done: it stays as it is, says why, and the rest is updated."""
    cluster.service("job", mode="global-job")
    cluster.decide()
    cluster.agents()
    cluster.finish("job")
    cluster.agents()
    cluster.docs["nodes"]["n1"] = replace(cluster.docs["nodes"]["n1"], availability=availability)
    cluster.change("job", version=2)
    for _ in range(12):
        cluster.decide()
        cluster.agents()
        cluster.finish("job")
        cluster.agents()
        cluster.pass_time(2_000)
    assert versions(cluster) == [1, 2, 2]
    assert any("stays at version 1" in note for note in cluster.docs["decisions"]["job"].notes)
    cluster.docs["nodes"]["n1"] = replace(cluster.docs["nodes"]["n1"], availability="active")
    cluster.decide()
    assert versions(cluster) == [2, 2, 2]
