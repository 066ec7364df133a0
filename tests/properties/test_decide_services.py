"""What must hold of the decisions whatever happens to the cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.decide.ports import host_claims
from controller.decide.services import decide_services
from model.addresses import service_range
from model.documents import NodeInfo
from model.spec import Attachment, ContainerSpec, Mount, Placement, Port, UpdateConfig
from tests.scenarios.model_cluster import ModelCluster

ROOT = Path(__file__).parents[2]
Draw = Callable[[Any], Any]
NAMES = [f"n{number}" for number in range(1, 7)]


PRIORITIES = (0, 0, 0, -3, 5, 10)


@st.composite
def clusters(draw: st.DrawFn, priorities: tuple[int, ...] = (0,)) -> ModelCluster:
    """Some nodes, networks and services of all kinds; nothing placed yet."""
    cluster = ModelCluster()
    for name in NAMES[: draw(st.integers(1, 6))]:
        info = NodeInfo(cpus=draw(st.integers(1, 4)), memory_bytes=draw(st.integers(1, 8)), pids=draw(st.sampled_from([0, 6])))
        zone = (("zone", draw(st.sampled_from("ab"))),)
        cluster.node(name, info, labels=zone, availability=draw(st.sampled_from(["active"] * 6 + ["pause", "drain"])))
    cluster.network("net")
    cluster.network("small", "10.9.0.0/27")
    for number in range(draw(st.integers(0, 4))):
        add_service(draw, cluster, f"s{number}", priorities)
    return cluster


def add_service(draw: Draw, cluster: ModelCluster, name: str, priorities: tuple[int, ...] = (0,)) -> None:
    volume = draw(st.sampled_from(["", "", "", "v1", "v2"]))
    ports = draw(st.sampled_from([(), (), (), (Port(80),), (Port(80, 8080),), (Port(80, 9000, published_end=9002), Port(81))]))
    ports += draw(st.sampled_from([(), (), (), (Port(53, 53, "udp", "host"),)]))
    container = ContainerSpec("x", mounts=(Mount("volume", "/data", volume),) if volume else (), ports=ports)
    modes = ["replicated"] * 4 + ["global"] * (not volume or len(priorities) == 1)  # its copies come after others
    cluster.service(
        name, draw(st.integers(0, 7)), container=container, cpus=draw(st.sampled_from([0.0, 0.5, 1.0])),
        memory=draw(st.integers(0, 2)), pids=draw(st.integers(0, 2)),
        mode=draw(st.sampled_from(modes)),
        networks=draw(st.sampled_from([(), ("net",), ("small",), ("net", "small")])),
        placement=Placement(
            constraints=draw(st.sampled_from([(), (), ("node.labels.zone==a",)])),
            spread=draw(st.sampled_from([(), ("node.labels.zone",)])), max_replicas_per_node=draw(st.sampled_from([0, 0, 2])),
        ),
        update=UpdateConfig(draw(st.integers(0, 3)), order=draw(st.sampled_from(["stop-first", "start-first"]))),
        priority=draw(st.sampled_from(priorities)),
    )  # fmt: skip


def disturb(draw: Draw, cluster: ModelCluster, priorities: tuple[int, ...] = (0,)) -> None:
    """One thing that happens to clusters."""
    what = draw(
        st.sampled_from(
            ["scale", "version", "lose", "cut", "back", "drain", "active", "remove", "add", "delete", "stop", "connect", "rank"]
        )
    )
    services, nodes = sorted(cluster.docs["services"]), sorted(cluster.docs["nodes"])
    service = draw(st.sampled_from(services)) if services else ""
    node = draw(st.sampled_from(nodes)) if nodes else ""
    if service and what == "scale":
        cluster.change(service, scale=draw(st.integers(0, 7)))
    elif service and what == "version":
        cluster.change(service, version=cluster.docs["services"][service].version + 1)
    elif service and what == "connect":
        names = draw(st.sampled_from([(), ("net",), ("small", "net")]))
        cluster.change(service, networks=tuple(Attachment(network) for network in names))
    elif service and what == "delete":
        del cluster.docs["services"][service]
    elif service and what == "stop":
        cluster.change(service, stopped=draw(st.booleans()))
    elif service and what == "rank":
        spec = replace(cluster.docs["services"][service].spec, priority=draw(st.sampled_from(priorities)))
        cluster.change(service, spec=spec)
    elif what == "add" and "extra" not in services:
        add_service(draw, cluster, "extra", priorities)
    elif node:
        disturb_node(what, cluster, node)


def disturb_node(what: str, cluster: ModelCluster, node: str) -> None:
    if what in ("lose", "cut"):
        (cluster.kill if what == "lose" else cluster.cut)(node)
        cluster.expire()
    elif what == "back" and node in cluster.dead:
        cluster.back(node)
        cluster.decide_nodes()
    elif what in ("drain", "active"):
        cluster.docs["nodes"][node] = replace(cluster.docs["nodes"][node], availability=what)
    elif what == "remove":
        del cluster.docs["nodes"][node]
        cluster.sessions.pop(node)
        cluster.dead.discard(node)
        cluster.running.pop(node, None)


def given_away(cluster: ModelCluster, node: str) -> Counter[str]:
    used: Counter[str] = Counter()
    for entry in cluster.docs["assignments"][node].services if node in cluster.docs["assignments"] else ():
        doc = cluster.docs["services"].get(entry.name)
        if doc is not None:
            want = doc.spec.reservations
            count = len(entry.replicas)
            used.update(cpus=count * want.cpus, memory=count * want.memory_bytes, pids=count * want.pids)
    return used


def check_room(cluster: ModelCluster) -> None:
    for node in cluster.docs["nodes"]:
        info, used = cluster.docs["status"][node].info, given_away(cluster, node)
        if cluster.docs["health"][node].state == "ready":
            assert used["cpus"] <= info.cpus
            assert used["memory"] <= info.memory_bytes
            assert not info.pids or used["pids"] <= info.pids


def check_answers(cluster: ModelCluster) -> None:
    """No address and no number twice, none in a slice, none of a service that is gone."""
    places: Counter[object] = Counter()
    for plan in cluster.docs["svcplans"].values():
        assert cluster.docs["services"][plan.name].id == plan.id
        places.update(plan.vips)
        places.update((port.protocol, port.published) for port in plan.ports)
        for network, vip in plan.vips:
            net = cluster.docs["netplans"][network]
            assert ip_address(vip) in ip_network(service_range(net.subnet))
            assert not any(ip_address(vip) in ip_network(cidr) for _, cidr in net.slices)
    assert [row for row, count in places.items() if count > 1] == []


def check_ports(cluster: ModelCluster) -> None:
    """No port of a node is had by two replicas."""
    for node, doc in cluster.docs["assignments"].items():
        services = [(cluster.docs["services"].get(entry.name), len(entry.replicas)) for entry in doc.services]
        taken: Counter[object] = Counter()
        for service, count in services:
            taken.update(dict.fromkeys(host_claims(service), count) if service else {})
        assert all(count == 1 for count in taken.values()) or cluster.docs["health"][node].state == "down"


@given(st.sampled_from([(0,), PRIORITIES]).flatmap(clusters))
@settings(max_examples=200, deadline=None)
def test_one_pass_reaches_the_spec_a_second_does_nothing(cluster: ModelCluster) -> None:
    cluster.decide()
    assert cluster.decide().empty()
    for name, doc in cluster.docs["services"].items():
        if doc.spec.mode == "replicated":
            waiting = cluster.docs["decisions"][name].waiting if name in cluster.docs["decisions"] else ()
            assert len(cluster.where(name)) + len(waiting) == doc.scale


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_happens_the_cluster_settles_and_no_node_is_given_more_than_it_has(data: st.DataObject) -> None:
    priorities = data.draw(st.sampled_from([(0,), PRIORITIES]))
    cluster = data.draw(clusters(priorities))
    for _ in range(data.draw(st.integers(1, 6))):
        disturb(data.draw, cluster, priorities)
        cluster.decide()
        if data.draw(st.booleans()):
            cluster.agents()
    cluster.converge(rounds=120)
    check_room(cluster)
    check_answers(cluster)
    check_ports(cluster)
    for name, doc in cluster.docs["services"].items():
        if doc.spec.mode == "replicated" and not doc.stopped:
            waiting = cluster.docs["decisions"][name].waiting if name in cluster.docs["decisions"] else ()
            assert len(cluster.where(name)) <= doc.scale
            assert all(len(nodes) == 1 for nodes in cluster.where(name).values())
            assert len(cluster.where(name)) + len(waiting) == doc.scale


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_loss_and_return_of_nodes_never_touch_a_healthy_container(data: st.DataObject) -> None:
    cluster = data.draw(clusters())
    cluster.converge()
    names = sorted(cluster.docs["nodes"])
    away = data.draw(st.lists(st.sampled_from(names), unique=True, max_size=(len(names)) // 2))
    original = {name: cluster.containers(name) for name in cluster.docs["services"]}
    cluster.cut(*away)
    cluster.expire()
    for _ in range(3):
        cluster.decide()
        cluster.agents()
    cluster.back(*away)
    cluster.decide_nodes()
    cluster.converge()
    for name, containers in original.items():
        assert containers <= cluster.containers(name)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_losing_most_nodes_moves_nothing(data: st.DataObject) -> None:
    cluster = data.draw(clusters())
    cluster.converge()
    names = sorted(cluster.docs["nodes"])
    lost = data.draw(st.lists(st.sampled_from(names), unique=True, min_size=len(names) // 2 + 1))
    cluster.cut(*lost)
    for _ in range(5):
        cluster.expire()
        assert not any(doc.state == "down" for doc in cluster.docs["health"].values())
        assert cluster.decide().assignments == ()


@given(clusters())
@settings(max_examples=60, deadline=None)
def test_the_rollout_never_makes_more_than_parallelism_unavailable(cluster: ModelCluster) -> None:
    cluster.converge()
    cluster.pass_time(100_000)
    for name in cluster.docs["services"]:
        cluster.change(name, version=2)
    for _ in range(40):
        up = {name: len(cluster.containers(name)) for name in cluster.docs["services"]}
        cluster.decide()
        cluster.agents_stop_only()
        for name, doc in cluster.docs["services"].items():
            limit = doc.spec.update.parallelism or 1 << 30
            assert up[name] - len(cluster.containers(name)) <= limit
        cluster.agents()
        cluster.pass_time(1_000)


@given(clusters(PRIORITIES))
@settings(max_examples=60, deadline=None)
def test_the_index_changes_no_answer(cluster: ModelCluster) -> None:
    cluster.converge()
    for name in cluster.docs["services"]:
        cluster.change(name, scale=5)
    view = cluster.view()
    bare = replace(view, index=None)
    assert decide_services(view, None, cluster.settings, 5) == decide_services(bare, None, cluster.settings, 5)


PROGRAM = """
from tests.scenarios.model_cluster import ModelCluster
cluster = ModelCluster()
for number in range(7):
    cluster.node(f"n{number}", labels=(("zone", "abc"[number % 3]),))
for number in range(9):
    cluster.network(f"net{number}")
    mode = "global" if number == 4 else "replicated"
    cluster.service(f"s{number}", number, cpus=0.25, networks=(f"net{number}", "net0"), mode=mode)
cluster.converge()
del cluster.docs["nodes"]["n3"], cluster.docs["services"]["s5"]
cluster.lose("n1")
print(cluster.decide())
"""


def test_hash_seeds_change_nothing() -> None:
    answers = set()
    for seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
        )
        answers.add(run.stdout)
    assert len(answers) == 1
