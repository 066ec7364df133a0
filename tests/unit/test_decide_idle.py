"""Slices of networks: when it is known that nobody uses one, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controller.decide.idle import SLICES, next_look_ms
from controller.decide.types import Settings
from model.documents import ReplicaStatus
from model.spec import Attachment
from tests.scenarios.model_cluster import ModelCluster

IDLE_MS = 600_000


@pytest.fixture
def cluster() -> ModelCluster:
    """n1 has a slice of `net` and runs `other`, which is not on it; n2 runs `web`, which is."""
    cluster = ModelCluster()
    for name in ("n1", "n2"):
        cluster.node(name)
    cluster.network("net", "10.9.0.0/24")
    cluster.service("web", 2, networks=("net",))
    cluster.service("other", mode="global")
    cluster.decide()
    cluster.agents()
    cluster.change("web", scale=1)
    cluster.decide()
    cluster.agents()
    assert cluster.counts("web") == {"n1": 1}
    return cluster


def idle(cluster: ModelCluster) -> tuple[tuple[str, int], ...]:
    found: tuple[tuple[str, int], ...] = cluster.docs["netplans"]["net"].idle
    return found


def slices(cluster: ModelCluster) -> list[str]:
    return [node for node, _ in cluster.docs["netplans"]["net"].slices]


def test_a_slice_goes_when_it_was_unused_for_so_long(cluster: ModelCluster) -> None:
    cluster.decide([SLICES])
    assert idle(cluster) == (("n2", cluster.now_ms),)
    assert cluster.wake_at_ms == cluster.now_ms + IDLE_MS
    cluster.pass_time(IDLE_MS - 1)
    cluster.decide([SLICES])
    assert slices(cluster) == ["n1", "n2"]
    cluster.pass_time(1)
    plan = cluster.decide([SLICES])
    assert [event.sentence for event in plan.events] == ["n2 gives back a slice that nobody has used for 10 min"]
    assert (slices(cluster), idle(cluster)) == (["n1"], ())
    assert cluster.decide([SLICES]).empty()
    assert cluster.wake_at_ms is None


def test_who_is_placed_there_again_takes_the_mark_away_in_the_same_plan(cluster: ModelCluster) -> None:
    cluster.decide([SLICES])
    before = dict(cluster.docs["netplans"]["net"].slices)
    cluster.change("web", scale=2)
    plan = cluster.decide(["web"])
    assert [doc.node for doc in plan.assignments] == ["n2"]
    assert [dict(doc.slices) for doc in plan.netplans] == [before]
    assert idle(cluster) == ()


def test_who_is_placed_there_in_the_pass_that_would_give_it_back_keeps_it(cluster: ModelCluster) -> None:
    cluster.decide([SLICES])
    cluster.pass_time(IDLE_MS)
    cluster.change("web", scale=2)
    cluster.decide(["web", SLICES])
    assert (slices(cluster), idle(cluster)) == (["n1", "n2"], ())


def test_who_is_connected_while_it_runs_keeps_it(cluster: ModelCluster) -> None:
    cluster.decide([SLICES])
    cluster.change("other", networks=(Attachment("net"),))
    cluster.decide(["other"])
    assert idle(cluster) == ()


def no_session(cluster: ModelCluster) -> None:
    cluster.sessions["n2"] = cluster.sessions["n2"]._replace(open=False)


def not_whole(cluster: ModelCluster) -> None:
    cluster.sessions["n2"] = cluster.sessions["n2"]._replace(whole_status=False)


def older_document(cluster: ModelCluster) -> None:
    cluster.sessions["n2"] = cluster.sessions["n2"]._replace(generation=cluster.sessions["n2"].generation - 1)


def not_ready(cluster: ModelCluster) -> None:
    cluster.docs["health"]["n2"] = replace(cluster.docs["health"]["n2"], state="unreachable")


def tell(cluster: ModelCluster, **changes: Any) -> None:
    status = cluster.docs["status"]["n2"]
    row = ReplicaStatus("id-old", 1, 1, 5, "stopping", **changes)
    cluster.docs["status"]["n2"] = replace(status, replicas=(*status.replicas, row))


def one_still_ends(cluster: ModelCluster) -> None:
    tell(cluster)


def one_is_attached(cluster: ModelCluster) -> None:
    """Assigned, and taken off the network a moment ago."""
    status = cluster.docs["status"]["n2"]
    rows = tuple(replace(row, addresses=(("net", "10.9.0.66"),)) for row in status.replicas)
    cluster.docs["status"]["n2"] = replace(status, replicas=rows)


UNKNOWN = [no_session, not_whole, older_document, not_ready, one_still_ends, one_is_attached]


@pytest.mark.parametrize("trouble", UNKNOWN, ids=[what.__name__ for what in UNKNOWN])
@pytest.mark.parametrize("marked", [False, True])
def test_what_is_not_known_to_be_unused_stays(
    cluster: ModelCluster, trouble: Callable[[ModelCluster], None], marked: bool
) -> None:
    if marked:
        cluster.decide([SLICES])
        assert idle(cluster)
    cluster.pass_time(IDLE_MS)
    trouble(cluster)
    cluster.decide([SLICES])
    assert (slices(cluster), idle(cluster)) == (["n1", "n2"], ())
    later = next_look_ms(cluster.settings, cluster.now_ms)
    assert cluster.wake_at_ms == (None if trouble is not_ready else later)


def test_a_clock_that_was_set_back_begins_anew(cluster: ModelCluster) -> None:
    cluster.decide([SLICES])
    cluster.now_ms -= 1_000
    cluster.decide([SLICES])
    assert idle(cluster) == (("n2", cluster.now_ms),)


def test_a_removed_node_leaves_neither_slice_nor_mark(cluster: ModelCluster) -> None:
    cluster.decide([SLICES])
    del cluster.docs["nodes"]["n2"]
    cluster.decide()
    assert (slices(cluster), idle(cluster)) == (["n1"], ())


def test_what_is_free_goes_to_nodes_that_take_replicas(cluster: ModelCluster) -> None:
    """Two slices for four nodes: not to the first two by name, of which one is drained and one has no room."""
    for name, cpus in (("a1", 4), ("a2", 1)):
        cluster.node(name, replace(cluster.docs["status"]["n1"].info, cpus=cpus))
    cluster.docs["nodes"]["a1"] = replace(cluster.docs["nodes"]["a1"], availability="drain")
    cluster.network("tiny", "10.8.0.0/29")
    cluster.service("big", 2, networks=("tiny",), cpus=2.0)
    cluster.decide()
    assert cluster.counts("big") == {"n1": 1, "n2": 1}


def test_looks_are_at_the_same_moments_whoever_asks() -> None:
    settings = Settings(slice_idle_ms=10_000)
    assert [next_look_ms(settings, now) for now in (0, 999, 1_000, 1_001)] == [1_000, 1_000, 2_000, 2_000]
