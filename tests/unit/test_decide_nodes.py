"""Node states from silence."""

from __future__ import annotations

import pytest

from controller.decide.nodes import ARRIVING_TIMEOUTS, HELD, RETURNING
from model.documents import NodeDoc
from tests.scenarios.model_cluster import ModelCluster

TIMEOUT_MS = 3_000


@pytest.fixture
def cluster() -> ModelCluster:
    cluster = ModelCluster()
    for name in ("n1", "n2", "n3"):
        cluster.node(name)
    return cluster


def state(cluster: ModelCluster, name: str) -> str:
    doc = cluster.docs["health"].get(name)
    return doc.state if doc else ""


def test_silence_makes_a_node_unreachable_at_half_and_down_at_the_whole_timeout(cluster: ModelCluster) -> None:
    cluster.kill("n2")
    plan = cluster.decide_nodes()
    assert plan.empty()
    assert plan.wake_at_ms == cluster.now_ms + TIMEOUT_MS // 2
    cluster.pass_time(TIMEOUT_MS // 2 - 1)
    assert cluster.decide_nodes().empty()
    cluster.pass_time(1)
    plan = cluster.decide_nodes()
    assert plan.sentence == "n2 is unreachable: silent for 1.5 s; it gets no new replicas"
    assert cluster.decide_nodes().empty()
    cluster.pass_time(TIMEOUT_MS // 2)
    plan = cluster.decide_nodes()
    assert plan.sentence == "n2 is down: silent for the node timeout of 3 s; its replicas move to other nodes"
    assert cluster.decide_nodes().empty()


def test_a_leader_that_is_late_in_reading_takes_nobody_for_silent(cluster: ModelCluster) -> None:
    """What they said may stand in its sockets. Who is silent is found when it has read so far, at the latest then."""
    cluster.hear("n1", "n2", "n3")
    heard_ms = cluster.now_ms
    cluster.now_ms += 10 * TIMEOUT_MS
    cluster.listened_ms = heard_ms + TIMEOUT_MS // 2 - 1
    plan = cluster.decide_nodes()
    assert plan.empty()
    assert plan.wake_at_ms == cluster.now_ms + 1
    cluster.hear("n1", "n3")
    cluster.listened_ms = heard_ms + TIMEOUT_MS // 2
    assert [(doc.name, doc.state) for doc in cluster.decide_nodes().health] == [("n2", "unreachable")]
    cluster.listened_ms = heard_ms + TIMEOUT_MS
    assert [(doc.name, doc.state) for doc in cluster.decide_nodes().health] == [("n2", "down")]


def test_the_wake_up_is_exactly_the_next_deadline(cluster: ModelCluster) -> None:
    cluster.kill("n2")
    cluster.pass_time(TIMEOUT_MS // 2)
    plan = cluster.decide_nodes()
    assert plan.wake_at_ms == cluster.now_ms + TIMEOUT_MS // 2
    cluster.now_ms = plan.wake_at_ms
    cluster.hear("n1", "n3")
    assert [doc.state for doc in cluster.decide_nodes().health] == ["down"]


def test_a_node_is_ready_only_with_an_open_session_and_its_whole_status(cluster: ModelCluster) -> None:
    cluster.docs["nodes"]["n4"] = NodeDoc("n4", "id", joined_ms=cluster.now_ms)
    assert cluster.decide_nodes().empty()
    cluster.hear("n4")
    cluster.sessions["n4"] = cluster.sessions["n4"]._replace(whole_status=False)
    assert cluster.decide_nodes().empty()
    cluster.hear("n4")
    assert cluster.decide_nodes().sentence == "n4 is ready"
    cluster.lose("n4")
    assert state(cluster, "n4") == "down"
    cluster.back("n4")
    assert cluster.decide_nodes().sentence == "n4 is ready again (was down)"


def test_a_closed_session_alone_changes_nothing(cluster: ModelCluster) -> None:
    cluster.sessions["n1"] = cluster.sessions["n1"]._replace(open=False)
    assert cluster.decide_nodes().empty()


def test_a_new_leader_counts_silence_from_its_beginning(cluster: ModelCluster) -> None:
    cluster.now_ms += 100_000
    cluster.reign_ms = cluster.now_ms
    cluster.sessions.clear()
    plan = cluster.decide_nodes()
    assert plan.empty()
    assert plan.wake_at_ms == cluster.now_ms + TIMEOUT_MS // 2


def test_losing_most_nodes_at_once_marks_none_down_until_they_are_heard(cluster: ModelCluster) -> None:
    cluster.cut("n2", "n3")
    for _ in range(6):
        cluster.pass_time(TIMEOUT_MS)
        cluster.decide_nodes()
    assert [state(cluster, name) for name in ("n1", "n2", "n3")] == ["ready", "unreachable", "unreachable"]
    assert cluster.docs["health"]["n2"].message == HELD
    assert cluster.decide_nodes().empty()
    cluster.back("n2")
    cluster.decide_nodes()
    assert [state(cluster, name) for name in ("n1", "n2", "n3")] == ["ready", "ready", "unreachable"]


def test_when_some_come_back_after_most_were_silent_the_others_get_one_more_timeout(cluster: ModelCluster) -> None:
    """The first to be heard again must not be the end of those that are a second behind."""
    cluster.node("n4")
    cluster.cut("n1", "n2", "n3", "n4")
    cluster.pass_time(TIMEOUT_MS // 2)
    cluster.decide_nodes()
    cluster.pass_time(TIMEOUT_MS)
    cluster.back("n1", "n2")
    plan = cluster.decide_nodes()
    assert [(doc.name, doc.state, doc.message) for doc in plan.health[2:]] == [
        ("n3", "unreachable", RETURNING), ("n4", "unreachable", RETURNING)
    ]  # fmt: skip
    cluster.pass_time(TIMEOUT_MS - 1)
    plan = cluster.decide_nodes()
    assert (plan.empty(), plan.wake_at_ms) == (True, cluster.now_ms + 1)
    cluster.back("n3")
    cluster.pass_time(1)
    assert [doc.state for doc in cluster.decide_nodes().health] == ["ready", "down"]
    cluster.back("n4")
    assert cluster.decide_nodes().sentence == "n4 is ready again (was down)"


def a_new_reign(cluster: ModelCluster) -> None:
    cluster.sessions.clear()
    cluster.reign_ms = cluster.now_ms


def test_after_a_change_of_leader_who_waits_in_the_line_is_not_lost(cluster: ModelCluster) -> None:
    for name in ("n4", "n5"):
        cluster.node(name)
    a_new_reign(cluster)
    cluster.hear("n1", "n2", "n3")
    for name in ("n3", "n4"):
        cluster.now_ms += TIMEOUT_MS - 1
        cluster.hear("n1", "n2", "n3", name)
        cluster.sessions[name] = cluster.sessions[name]._replace(since_ms=cluster.now_ms)
        assert "down" not in {doc.state for doc in cluster.decide_nodes().health}
    cluster.now_ms += TIMEOUT_MS
    cluster.hear("n1", "n2", "n3", "n4")
    cluster.decide_nodes()
    cluster.decide_nodes()
    assert [state(cluster, name) for name in ("n3", "n4", "n5")] == ["ready", "ready", "down"]


def test_the_line_of_a_new_reign_has_an_end_whoever_still_comes(cluster: ModelCluster) -> None:
    a_new_reign(cluster)
    timeouts = 0
    while state(cluster, "n3") != "down":
        timeouts += 1
        cluster.now_ms += TIMEOUT_MS
        cluster.hear("n1", "n2")
        cluster.sessions["n2"] = cluster.sessions["n2"]._replace(since_ms=cluster.now_ms)
        cluster.decide_nodes()
        cluster.decide_nodes()
    assert timeouts == ARRIVING_TIMEOUTS + 1


def test_an_operator_ends_it_by_removing_the_lost(cluster: ModelCluster) -> None:
    cluster.cut("n2", "n3")
    cluster.expire()
    cluster.expire()
    assert state(cluster, "n3") == "unreachable"
    del cluster.docs["nodes"]["n2"]
    cluster.decide()
    cluster.decide_nodes()
    assert state(cluster, "n3") == "down"


def test_the_only_node_never_goes_down() -> None:
    cluster = ModelCluster()
    cluster.node("n1")
    cluster.kill("n1")
    for _ in range(5):
        cluster.expire()
    assert state(cluster, "n1") == "unreachable"


def test_a_second_loss_soon_after_the_first_waits_until_the_first_is_old(cluster: ModelCluster) -> None:
    cluster.lose("n3")
    assert state(cluster, "n3") == "down"
    cluster.kill("n2")
    cluster.pass_time(TIMEOUT_MS)
    cluster.decide_nodes()
    cluster.decide_nodes()
    assert state(cluster, "n2") == "unreachable"
    old_at = cluster.docs["health"]["n3"].since_ms + 3 * TIMEOUT_MS
    cluster.now_ms = old_at - 1
    cluster.hear("n1")
    assert cluster.decide_nodes().wake_at_ms == old_at
    cluster.now_ms = old_at
    cluster.decide_nodes()
    assert state(cluster, "n2") == "down"
