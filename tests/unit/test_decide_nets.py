"""Networks' plans: what their subnets may not overlap, IPv6 prefixes, addresses that are asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.decide.addresses import own_prefix6
from controller.decide.fixed import unusable
from controller.decide.nets import subnet_problem
from controller.decide.types import Settings
from model.documents import ReplicaStatus, StatusDoc
from model.spec import Attachment, ContainerSpec, NetworkSpec
from tests.scenarios.model_cluster import INFO, ModelCluster


@pytest.fixture
def cluster() -> ModelCluster:
    cluster = ModelCluster(Settings(node_timeout_ms=3_000, pool="10.64.0.0/10", avoid=("10.64.0.0/16",)))
    for name in ("n1", "n2"):
        cluster.node(name)
    return cluster


def routes(cluster: ModelCluster, node: str, *subnets: str) -> None:
    cluster.docs["status"][node] = StatusDoc(node, replace(INFO, routes=subnets))


def asking(address: str, network: str = "net") -> ContainerSpec:
    return ContainerSpec("x", networks=(Attachment(network, ipv4_address=address),))


def waiting(cluster: ModelCluster, service: str) -> str:
    decision = cluster.docs["decisions"].get(service)
    return str(decision.waiting[0][1]) if decision and decision.waiting else ""


def test_a_subnet_from_the_pool_avoids_routes_claims_and_other_networks(cluster: ModelCluster) -> None:
    routes(cluster, "n2", "10.65.3.0/24", "not a subnet", "192.168.1.0/24")
    cluster.network("claimed", "10.66.0.0/16")
    for name in ("a", "b"):
        cluster.network(name)
        cluster.service(name, networks=(name,))
    cluster.decide()
    plans = cluster.docs["netplans"]
    assert (plans["a"].subnet, plans["b"].subnet) == ("10.67.0.0/16", "10.68.0.0/16")


def test_a_claimed_subnet_says_whose_route_it_overlaps(cluster: ModelCluster) -> None:
    routes(cluster, "n2", "192.168.7.0/24")
    cluster.network("own", "192.168.0.0/16")
    cluster.service("web", networks=("own",))
    cluster.decide()
    why = "network own: its subnet 192.168.0.0/16 overlaps 192.168.7.0/24, to which node n2 has a route"
    assert waiting(cluster, "web") == why
    assert subnet_problem(cluster.view(), NetworkSpec("own", subnet="192.168.0.0/16"), cluster.settings) == why


def test_what_the_api_asks_before_a_network_is_made(cluster: ModelCluster) -> None:
    cluster.network("used", "172.20.0.0/16", enable_ipv6=True, subnet6="fd00:1::/64")
    cluster.service("web", networks=("used",))
    cluster.decide()
    cluster.network("claimed", "172.21.0.0/16")
    view, settings = cluster.view(), cluster.settings

    def problem(**changes: Any) -> str:
        return subnet_problem(view, replace(NetworkSpec("new"), **changes), settings)

    assert problem() == problem(subnet="172.22.0.0/16") == problem(enable_ipv6=True) == ""
    assert problem(subnet="172.20.5.0/24") == "network new: its subnet 172.20.5.0/24 overlaps 172.20.0.0/16 of network used"
    assert problem(subnet="172.21.5.0/24") == "network new: its subnet 172.21.5.0/24 overlaps 172.21.0.0/16 of network claimed"
    assert problem(subnet="10.64.9.0/24").endswith("overlaps 10.64.0.0/16, to which this controller's machine has a route")
    six = problem(enable_ipv6=True, subnet6="fd00:1::/48")
    assert six == "network new: its subnet fd00:1::/48 overlaps fd00:1::/96 of network used"
    full = subnet_problem(view, NetworkSpec("new"), replace(settings, pool="10.64.0.0/16"))
    assert full.startswith("network new: pool 10.64.0.0/16 has no free /16 left")


def test_ipv6_prefixes_follow_from_the_network_and_are_its_own(cluster: ModelCluster) -> None:
    cluster.network("plain")
    cluster.network("six", enable_ipv6=True)
    cluster.network("own", enable_ipv6=True, subnet6="fd00:9::/64")
    cluster.network("bad", enable_ipv6=True, subnet6="fd00:9::/112")
    for name in ("plain", "six", "own", "bad"):
        cluster.service(name, networks=(name,))
    cluster.decide()
    plans = cluster.docs["netplans"]
    assert (plans["plain"].prefix6, plans["own"].prefix6) == ("", "fd00:9::/96")
    assert plans["six"].prefix6 == own_prefix6("id-six", plans["six"].vni, [])
    assert plans["six"].prefix6.startswith("fd")
    assert waiting(cluster, "bad").endswith("cannot be used: expected an IPv6 network of /96 or larger")
    assert own_prefix6("id-six", 5000, [own_prefix6("id-six", 5000, [])]) != own_prefix6("id-six", 5000, [])


def test_a_network_planned_without_a_prefix_gets_one_and_keeps_the_rest(cluster: ModelCluster) -> None:
    cluster.network("net")
    cluster.service("web", networks=("net",))
    cluster.converge()
    before = cluster.docs["netplans"]["net"]
    cluster.docs["networks"]["net"] = replace(
        cluster.docs["networks"]["net"], spec=replace(cluster.docs["networks"]["net"].spec, enable_ipv6=True)
    )
    cluster.converge()
    after = cluster.docs["netplans"]["net"]
    assert after.prefix6
    assert replace(after, prefix6="") == before


def test_slices_that_lie_where_services_have_their_addresses_are_kept(cluster: ModelCluster) -> None:
    cluster.network("small", "10.9.0.0/28")
    cluster.service("web", networks=("small",))
    cluster.decide()
    cluster.docs["netplans"]["small"] = replace(cluster.docs["netplans"]["small"], slices=(("n1", "10.9.0.0/28"),))
    cluster.docs["svcplans"].clear()
    cluster.decide()
    assert cluster.docs["netplans"]["small"].slices == (("n1", "10.9.0.0/28"),)
    assert "web" not in cluster.docs["svcplans"]


# ---- addresses that are asked for


def test_an_address_outside_its_nodes_slice_is_told_with_the_node_and_moves_with_the_replica(cluster: ModelCluster) -> None:
    cluster.network("net", "172.20.0.0/16")
    cluster.service("asks", container=asking("172.20.9.9"))
    cluster.converge()
    assert cluster.docs["netplans"]["net"].fixed == (("172.20.9.9", "n1"),)
    assert cluster.decide().empty()
    cluster.node("n1", availability="drain")
    cluster.converge()
    assert cluster.where("asks") == {1: ["n2"]}
    assert cluster.docs["netplans"]["net"].fixed == (("172.20.9.9", "n2"),)
    cluster.change("asks", networks=())
    cluster.converge()
    assert cluster.docs["netplans"]["net"].fixed == ()


def test_it_is_told_for_nobody_when_the_service_is_gone_or_has_no_replica(cluster: ModelCluster) -> None:
    cluster.network("net", "172.20.0.0/16")
    cluster.service("asks", container=asking("172.20.9.9"))
    cluster.converge()
    cluster.change("asks", scale=0)
    cluster.converge()
    assert cluster.docs["netplans"]["net"].fixed == ()
    cluster.change("asks", scale=1)
    cluster.converge()
    assert cluster.docs["netplans"]["net"].fixed == (("172.20.9.9", "n1"),)
    del cluster.docs["services"]["asks"]
    cluster.decide(["asks"])
    assert cluster.docs["netplans"]["net"].fixed == ()


def test_a_lost_nodes_address_is_on_the_next_one_and_back_with_its_container(cluster: ModelCluster) -> None:
    cluster.network("net", "172.20.0.0/16")
    cluster.service("asks", container=asking("172.20.9.9"))
    cluster.node("n3")
    cluster.converge()
    cluster.cut("n1")
    cluster.expire()
    cluster.converge()
    assert cluster.docs["netplans"]["net"].fixed == (("172.20.9.9", "n2"),)
    cluster.back("n1")
    cluster.decide_nodes()
    cluster.converge()
    assert cluster.docs["netplans"]["net"].fixed == (("172.20.9.9", "n1"),)


def test_no_slice_is_made_around_an_address_of_another_node(cluster: ModelCluster) -> None:
    cluster.network("net", "172.20.0.0/16")
    cluster.service("asks", container=asking("172.20.1.9"))
    cluster.converge()
    cluster.service("web", 2, networks=("net",))
    cluster.converge()
    assert cluster.docs["netplans"]["net"].slices == (("n1", "172.20.0.0/24"), ("n2", "172.20.2.0/24"))


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.9.9.9", "is not in its subnet 172.20.0.0/24"),
        ("172.20.0.0", "is the first of its subnet 172.20.0.0/24"),
        ("172.20.0.255", "is the broadcast address of its subnet 172.20.0.0/24"),
        ("172.20.0.1", "is one of those that n1 needs itself"),
        ("nonsense", "is no IPv4 address"),
    ],
)
def test_an_address_that_cannot_be_had_is_a_reason_to_wait(cluster: ModelCluster, address: str, why: str) -> None:
    cluster.network("net", "172.20.0.0/24")
    cluster.service("first", networks=("net",))
    cluster.converge()
    cluster.service("asks", container=asking(address))
    cluster.decide()
    assert waiting(cluster, "asks").startswith(f"network net: address {address} {why}")
    assert cluster.docs["netplans"]["net"].fixed == ()


def test_addresses_that_no_container_can_ever_have() -> None:
    slices = {"n1": "172.20.0.0/26", "n2": "172.20.0.64/26"}
    said = {address: unusable("172.20.0.0/24", slices, address) for address in ("172.20.0.1", "172.20.0.65", "172.20.0.127")}
    assert [why.split(" that ")[1] for why in said.values()] == [f"{node} needs itself" for node in ("n1", "n2", "n2")]
    assert not any(unusable("172.20.0.0/24", slices, address) for address in ("172.20.0.2", "172.20.0.126", "172.20.0.129"))


def test_an_address_that_another_has_is_a_reason_to_wait(cluster: ModelCluster) -> None:
    cluster.network("net", "172.20.0.0/24")
    cluster.service("web", networks=("net",))
    cluster.converge()
    vip = dict(cluster.docs["svcplans"]["web"].vips)["net"]
    cluster.service("a", container=asking(vip))
    cluster.service("b", container=asking("172.20.0.150"))
    cluster.service("c", container=asking("172.20.0.150"))
    row = ReplicaStatus("someone", 1, 1, 1, "running", addresses=(("net", "172.20.0.7/24"),))
    cluster.docs["status"]["n1"] = replace(cluster.docs["status"]["n1"], replicas=(row,))
    cluster.service("d", container=asking("172.20.0.7"))
    cluster.decide()
    assert waiting(cluster, "a") == f"network net: address {vip} is that of service web"
    assert cluster.where("b") == {1: ["n2"]}
    assert waiting(cluster, "c") == "network net: address 172.20.0.150 is asked for by b already"
    assert waiting(cluster, "d") == "network net: address 172.20.0.7 is in use by another container on n1"
