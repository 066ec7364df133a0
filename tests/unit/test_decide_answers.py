"""Addresses and published numbers of services: kept for life, never two of the same."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from controller.decide.explain import explain_service
from controller.decide.preview import preview
from controller.decide.stacks import StackChanges
from model.addresses import service_range
from model.documents import NodeInfo, ServiceDoc, StatusDoc
from model.spec import Attachment, ContainerSpec, Port
from tests.scenarios.model_cluster import ModelCluster


@pytest.fixture
def cluster() -> ModelCluster:
    cluster = ModelCluster()
    for name in ("n1", "n2"):
        cluster.node(name)
    cluster.network("net")
    return cluster


def vip(cluster: ModelCluster, service: str, network: str = "net") -> str:
    plan = cluster.docs["svcplans"].get(service)
    return dict(plan.vips).get(network, "") if plan else ""


def numbers(cluster: ModelCluster, service: str) -> list[int]:
    plan = cluster.docs["svcplans"].get(service)
    return [port.published for port in plan.ports] if plan else []


def publishing(*ports: Port) -> ContainerSpec:
    return ContainerSpec("busybox", ports=ports)


def test_a_service_has_an_address_among_those_for_services_as_long_as_it_lives(cluster: ModelCluster) -> None:
    cluster.service("web", 2, networks=("net",))
    cluster.converge()
    first = vip(cluster, "web")
    assert ip_address(first) in ip_network(service_range("10.0.0.0/16"))
    cluster.service("other", 1, networks=("net",))
    cluster.change("web", scale=0)
    cluster.converge()
    cluster.change("web", scale=3, version=2)
    cluster.converge()
    assert vip(cluster, "web") == first != vip(cluster, "other")


def test_a_service_of_the_same_name_and_another_id_has_another_plan(cluster: ModelCluster) -> None:
    cluster.service("web", 1, networks=("net",))
    cluster.converge()
    first = cluster.docs["svcplans"]["web"]
    cluster.change("web", id="another")
    cluster.converge()
    assert cluster.docs["svcplans"]["web"].id == "another"
    assert cluster.docs["svcplans"]["web"].vips != first.vips
    del cluster.docs["services"]["web"]
    cluster.decide(["web"])
    assert cluster.docs["svcplans"] == {}


@pytest.mark.parametrize(
    "changes", [{"endpoint_mode": "dnsrr"}, {"single": True}, {"mode": "replicated-job"}, {"networks": ("bridge",)}]
)
def test_who_has_no_address_of_its_own(cluster: ModelCluster, changes: dict[str, Any]) -> None:
    cluster.service("web", **{"networks": ("net",), **changes})
    cluster.decide()
    assert cluster.docs["svcplans"] == {}


def test_an_address_goes_when_the_service_leaves_the_network_and_comes_live(cluster: ModelCluster) -> None:
    cluster.network("back")
    cluster.service("web", 2, networks=("net",))
    cluster.converge()
    before, containers = dict(cluster.docs["assignments"]), cluster.containers("web")
    cluster.change("web", networks=(Attachment("net"), Attachment("back")))
    cluster.converge()
    assert [node for node, _ in cluster.docs["netplans"]["back"].slices] == ["n1", "n2"]
    assert vip(cluster, "web", "back")
    cluster.change("web", networks=(Attachment("back"),))
    cluster.converge()
    assert (vip(cluster, "web"), bool(vip(cluster, "web", "back"))) == ("", True)
    assert (cluster.docs["assignments"], cluster.containers("web")) == (before, containers)


def test_another_subnet_is_another_address(cluster: ModelCluster) -> None:
    cluster.service("web", 1, networks=("net",))
    cluster.converge()
    cluster.docs["networks"]["net"] = replace(
        cluster.docs["networks"]["net"], id="new", spec=replace(cluster.docs["networks"]["net"].spec, subnet="172.20.0.0/24")
    )
    cluster.converge()
    assert ip_address(vip(cluster, "web")) in ip_network("172.20.0.192/26")


def test_when_no_address_is_left_the_service_runs_and_says_so_until_one_is_free(cluster: ModelCluster) -> None:
    cluster.network("small", "10.9.0.0/28")
    for name in ("a", "b", "c"):
        cluster.service(name, 1, networks=("small",))
    cluster.converge()
    assert {vip(cluster, "a", "small"), vip(cluster, "b", "small")} == {"10.9.0.13", "10.9.0.14"}
    note = "network small: no address left for services in 10.9.0.12/30; names give replicas instead"
    assert cluster.docs["decisions"]["c"].notes == (note,)
    assert len(cluster.containers("c")) == 1
    freed = vip(cluster, "a", "small")
    del cluster.docs["services"]["a"]
    cluster.decide(["a"])
    assert vip(cluster, "c", "small") == freed
    assert cluster.docs["decisions"]["c"].notes == ()


def test_tiny_subnets_have_no_room_for_services(cluster: ModelCluster) -> None:
    cluster.network("tiny", "10.9.0.0/29")
    cluster.service("web", 2, networks=("tiny",))
    cluster.converge()
    assert cluster.counts("web") == {"n1": 1, "n2": 1}
    assert cluster.docs["decisions"]["web"].notes[0].startswith("network tiny: no address left for services")


def test_an_address_is_none_that_somebody_asks_for(cluster: ModelCluster) -> None:
    cluster.network("small", "10.9.0.0/28")
    asks = ContainerSpec("x", networks=(Attachment("small", ipv4_address="10.9.0.13"),))
    cluster.service("asks", 1, container=asks, single=True)
    cluster.service("web", 1, networks=("small",))
    cluster.decide()
    assert vip(cluster, "web", "small") == "10.9.0.14"


def test_published_numbers_are_the_fixed_ones_or_the_lowest_free(cluster: ModelCluster) -> None:
    cluster.docs["status"]["n1"] = StatusDoc("n1", NodeInfo("10.1.0.2:30000", cpus=4.0, memory_bytes=8 << 30))
    cluster.service("asks", container=publishing(Port(80, 30001), Port(53, 9000, published_end=9002, protocol="udp")))
    cluster.service("web", container=publishing(Port(80), Port(443), Port(90, 9000, published_end=9002), Port(1, mode="host")))
    cluster.service("zone", container=publishing(Port(90, 9000, published_end=9001), Port(91, 9000, published_end=9001)))
    cluster.decide()
    assert numbers(cluster, "asks") == [9000, 30001]
    assert numbers(cluster, "web") == [30002, 9000, 30003]
    assert numbers(cluster, "zone") == [9001]
    assert cluster.docs["decisions"]["zone"].notes == ("port 91/tcp: no number left in 9000-9001: it is not published",)
    assert cluster.decide().empty()


def test_numbers_are_kept_when_other_ports_come_and_go(cluster: ModelCluster) -> None:
    cluster.service("web", container=publishing(Port(80), Port(443)))
    cluster.decide()
    cluster.service("web", container=publishing(Port(443), Port(22)), version=2)
    cluster.decide()
    assert {port.target: port.published for port in cluster.docs["svcplans"]["web"].ports} == {443: 30001, 22: 30000}
    cluster.service("web", container=publishing(), version=3)
    cluster.decide()
    assert cluster.docs["svcplans"] == {}


def test_of_two_with_the_same_number_the_first_keeps_it(cluster: ModelCluster) -> None:
    cluster.service("b", container=publishing(Port(80, 8080)))
    cluster.decide()
    cluster.service("a", container=publishing(Port(80, 8080)))
    cluster.decide()
    assert cluster.docs["decisions"]["a"].notes == ("port 8080/tcp is published by b already: it stays with that one",)
    del cluster.docs["services"]["b"]
    cluster.decide(["b"])
    assert numbers(cluster, "a") == [8080]


def test_numbers_that_change_hands_in_one_write_are_had_at_once(cluster: ModelCluster) -> None:
    def written(api: tuple[Port, ...], web: tuple[Port, ...]) -> tuple[list[int], list[int]]:
        cluster.service("api", container=publishing(*api))
        cluster.service("web", container=publishing(*web))
        cluster.decide(["api", "web"])
        return numbers(cluster, "api"), numbers(cluster, "web")

    assert written((Port(80, 8081),), (Port(80, 8080),)) == ([8081], [8080])
    assert written((Port(80, 8080),), ()) == ([8080], [])
    assert written((Port(80, 9090), Port(81)), (Port(80, 8080),)) == ([9090, 30000], [8080])
    assert written((Port(80, 8080),), (Port(80, 9090),)) == ([8080], [9090])
    assert cluster.docs["decisions"]["api"].notes == ()


def test_a_container_on_the_machines_own_network_publishes_nothing(cluster: ModelCluster) -> None:
    cluster.service("web", container=publishing(Port(80), Port(81, 81, mode="host")), networks=("host",), mode="global")
    cluster.decide()
    assert cluster.docs["svcplans"] == {}
    assert cluster.counts("web") == {"n1": 1, "n2": 1}


def test_a_port_of_the_node_is_had_once_also_between_services(cluster: ModelCluster) -> None:
    cluster.service("web", 3, container=publishing(Port(80, 8080, mode="host")))
    cluster.service("other", 1, container=publishing(Port(80, 8080, mode="host")))
    cluster.converge()
    assert cluster.counts("other") == {"n1": 1}
    assert cluster.counts("web") == {"n2": 1}
    assert cluster.docs["decisions"]["web"].waiting[0] == (2, "2 nodes: port 8080/tcp is taken on the node")
    del cluster.docs["services"]["other"]
    cluster.decide(["other"])
    assert cluster.counts("web") == {"n1": 1, "n2": 1}


def test_an_update_with_ports_of_the_node_stays_in_place(cluster: ModelCluster) -> None:
    ports = publishing(Port(80, 8080, mode="host"))
    cluster.service("web", 2, container=ports)
    cluster.converge()
    cluster.pass_time(60_000)
    start_first = replace(cluster.docs["services"]["web"].spec.update, order="start-first")
    cluster.service("web", 2, container=ports, version=2, update=start_first)
    cluster.converge()
    assert {row.version for rows in cluster.running.values() for row in rows.values()} == {2}
    assert cluster.counts("web") == {"n1": 1, "n2": 1}


def test_explain_says_where_the_service_answers(cluster: ModelCluster) -> None:
    ports = (Port(80, 8080), Port(443, local=True), Port(53, 53, "udp", "host", "10.0.0.1"))
    container = ContainerSpec("busybox", networks=(Attachment("net"), Attachment("bridge")), ports=ports)
    cluster.service("web", 1, container=container)
    cluster.converge()
    lines = explain_service(cluster.view(), "web", cluster.settings, cluster.now_ms).lines
    assert f"networks: net (VIP {vip(cluster, 'web')}), bridge" in lines
    everywhere = "8080->80/tcp on every node, 30000->443/tcp on nodes with a replica"
    assert f"published: {everywhere}, 10.0.0.1:53->53/udp on its replicas' nodes" in lines


def test_the_preview_shows_the_numbers_that_would_be_chosen(cluster: ModelCluster) -> None:
    cluster.service("old", container=publishing(Port(80)))
    cluster.decide()
    spec = replace(cluster.docs["services"]["old"].spec, name="web")
    changes = StackChanges(services=[ServiceDoc("id-web", spec, 1)])
    assert preview(cluster.view(), changes, cluster.settings, cluster.now_ms).published == (("web", "30001->80/tcp"),)


def test_a_port_that_shoal_needs_on_a_node_is_taken_there(cluster: ModelCluster) -> None:
    cluster.docs["status"]["n1"] = StatusDoc("n1", NodeInfo("10.1.0.2:7444", cpus=4.0, memory_bytes=8 << 30))
    cluster.service("web", 2, container=publishing(Port(80, 7444, mode="host")))
    cluster.converge()
    assert cluster.counts("web") == {"n2": 1}
