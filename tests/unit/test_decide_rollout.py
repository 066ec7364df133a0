"""Rollouts and replicas that never started: with what a change of leader leaves behind."""

from __future__ import annotations

from tests.scenarios.model_cluster import ModelCluster


def made(*nodes: str) -> ModelCluster:
    cluster = ModelCluster()
    for name in nodes:
        cluster.node(name)
    return cluster


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
