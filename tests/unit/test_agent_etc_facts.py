"""What /etc and the name server are told of a container's networks. Pure."""

from __future__ import annotations

from dataclasses import replace

from agent.plan.etc_facts import EtcFacts, client, etc_facts, known_to
from agent.plan.names import Client
from agent.plan.network import NetworkWanted
from agent.plan.records import Life, ReplicaId
from model.spec import ContainerSpec, Pairs, ServiceSpec

SHOP = NetworkWanted("shop", 7, "10.0.0.0/16", "10.0.1.0/24", prefix6="fd00:1::/96")
BACK = NetworkWanted("back", 8, "10.1.0.0/16", "10.1.2.0/24", internal=True)


def facts(addresses: Pairs, spec: ContainerSpec | None = None, netns: str = "ns") -> EtcFacts:
    life = Life(
        ReplicaId("s1", 1, 7, 1), ServiceSpec("web", spec or ContainerSpec("web:1")), "web.1", netns=netns, addresses=addresses
    )
    return etc_facts(life, known_to(life, (SHOP, BACK)))


def test_one_name_server_serves_all_networks() -> None:
    found = facts((("back", "10.1.2.5/16"), ("shop", "10.0.1.5/16")))
    assert found.nameservers == ("10.1.2.1",)
    assert found.addresses == ("10.1.2.5", "10.0.1.5", "fd00:1::a00:105")
    assert found.host_gateway == "10.1.2.1"


def test_the_bridge_has_no_names_but_for_links() -> None:
    bridge = (("bridge", "172.30.0.9/20"),)
    assert facts(bridge) == EtcFacts(("172.30.0.9",), (), "172.30.0.1", "172.30.0.1")
    linked = ContainerSpec("web:1", links=(("db", "db"),))
    assert facts(bridge, linked).nameservers == ("172.30.0.1",)
    assert facts((*bridge, ("shop", "10.0.1.5/16")), linked).nameservers == ("10.0.1.1",)


def test_on_the_nodes_own_network_the_node_is_localhost() -> None:
    assert facts((), netns="host") == EtcFacts(host_gateway="127.0.0.1")
    assert facts(()) == EtcFacts()


def test_the_name_server_knows_the_containers_own_resolvers_and_links() -> None:
    spec = ContainerSpec("web:1", links=(("db", "data"),), dns=("9.9.9.9",))
    life = Life(ReplicaId("s1", 1, 7, 1), ServiceSpec("web", spec), "web.1", addresses=(("shop", "10.0.1.5/16"),))
    assert client(life) == Client("web.1", (("shop", "10.0.1.5"),), (("db", "data"),), ("9.9.9.9",))
    assert client(replace(life, addresses=())).addresses == ()


def test_the_node_asks_no_resolver_that_only_the_container_can_mean() -> None:
    asked = ("9.9.9.9", "fd00::53", "127.0.0.1", "::1", "0.0.0.0", "10.0.0.1#2379", "dns.example", "224.0.0.251")
    life = Life(ReplicaId("s1", 1, 7, 1), ServiceSpec("web", ContainerSpec("web:1", dns=asked)), "web.1")
    assert client(life).resolvers == ("9.9.9.9", "fd00::53")
