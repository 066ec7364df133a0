"""Ports that are claimed twice, and where a linked container goes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.decide.clashes import port_clashes
from controller.decide.links import linked_node
from controller.decide.ports import host_port
from model.documents import ControllerDoc, NodeInfo, ServiceDoc, StatusDoc
from model.errors import BadInput, Conflict, NotFound
from model.spec import Attachment, ContainerSpec, Placement, Port, ServiceSpec
from tests.scenarios.model_cluster import ModelCluster


@pytest.fixture
def cluster() -> ModelCluster:
    cluster = ModelCluster()
    for number in (1, 2):
        info = NodeInfo(f"10.1.0.{number}:7444", f"10.1.0.{number}", cpus=4.0, memory_bytes=8 << 30)
        cluster.docs["status"][f"n{number}"] = StatusDoc(f"n{number}", info)
        cluster.node(f"n{number}")
    cluster.service("shop_web", container=ContainerSpec("x", ports=(Port(80, 8080), Port(90), Port(53, 53, "udp", "host"))))
    cluster.decide()
    return cluster


def service(name: str, *ports: Port, **changes: str) -> ServiceDoc:
    return ServiceDoc(f"id-{name}", ServiceSpec(name, ContainerSpec("x", ports=ports), **changes), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("port", "line"),
    [
        (Port(80, 8080), "port 8080/tcp is published by shop_web already: new_web cannot have it"),
        (Port(80, 8080, host_ip="10.1.0.1"), "port 8080/tcp is published by shop_web already: new_web cannot have it"),
        (Port(80, 8080, mode="host"), "port 8080/tcp is published by shop_web already: new_web cannot have it"),
        (Port(80, 30000), "port 30000/tcp is published by shop_web already: new_web cannot have it"),
        (Port(53, 53, "udp"), "port 53/udp is published by shop_web already: new_web cannot have it"),
        (Port(80, 7444), "port 7444/tcp is that of the agent on n1: new_web cannot have it"),
        (Port(80, 7444, mode="host"), "port 7444/tcp is that of the agent on n1: new_web cannot have it"),
        (Port(80, 8443), "port 8443/tcp is that of the controller on n2: new_web cannot have it"),
        (Port(80, 2379), "port 2379/tcp is that of etcd on n2: new_web cannot have it"),
    ],
)
def test_a_port_that_is_taken_is_refused_with_both_owners(cluster: ModelCluster, port: Port, line: str) -> None:
    controllers = {"c": ControllerDoc("c", "c", "https://10.1.0.2:8443", "10.1.0.2:7443")}
    cluster.docs["controllers"].update(controllers)
    assert port_clashes(cluster.view(), [service("new_web", port)]) == [line]


@pytest.mark.parametrize(
    "port",
    [
        Port(80, 8080, "udp"), Port(80), Port(80, 8000, published_end=9000), Port(53, 53, "udp", "host"),
        Port(1, 8443, mode="host"), Port(1, 2379),
    ],
)  # fmt: skip
def test_what_does_not_clash(cluster: ModelCluster, port: Port) -> None:
    assert port_clashes(cluster.view(), [service("new_web", port)]) == []


def test_a_range_of_which_others_have_all_is_refused(cluster: ModelCluster) -> None:
    cluster.service("next", container=ContainerSpec("x", ports=(Port(80, 8081),)))
    wants = service("new_web", Port(80, 8080, published_end=8081))
    line = "ports 8080-8081/tcp are all published already: new_web gets none of them for its 80"
    assert port_clashes(cluster.view(), [wants]) == [line]
    assert port_clashes(cluster.view(), [wants], gone=["next"]) == []
    assert port_clashes(cluster.view(), [service("new_web", Port(80, 8080, "udp", published_end=8081))]) == []
    mine = service("next", Port(80, 8080, published_end=8081))
    assert port_clashes(cluster.view(), [mine]) == []


def test_a_service_that_is_written_again_or_goes_is_in_nobodys_way(cluster: ModelCluster) -> None:
    again = cluster.docs["services"]["shop_web"]
    assert port_clashes(cluster.view(), [again]) == []
    other = service("new_web", Port(80, 8080))
    assert port_clashes(cluster.view(), [other], gone=["shop_web"]) == []
    assert port_clashes(cluster.view(), [again, other]) == [
        "port 8080/tcp is published by shop_web already: new_web cannot have it"
    ]


def test_addresses_that_do_not_overlap_are_two_ports() -> None:
    docs = [service("a", Port(80, 80, host_ip="10.0.0.1")), service("b", Port(80, 80, host_ip="10.0.0.2"))]
    assert port_clashes(ModelCluster().view(), docs) == []
    twice = service("c", Port(80, 81), Port(80, 81, host_ip="10.0.0.1"))
    assert port_clashes(ModelCluster().view(), [twice]) == ["port 81/tcp is published twice by c: once is enough"]


def test_addresses_with_a_port_are_read() -> None:
    assert host_port("https://[fd00::1]:8443") == ("fd00::1", 8443)
    assert host_port("n1:7443") == ("n1", 7443)
    assert host_port("") == ("", 0)


# ---- links


def linking(target: str, network: str = "bridge", node: str = "") -> ServiceSpec:
    container = ContainerSpec("busybox", networks=(Attachment(network),), links=((target, "alias"),))
    return ServiceSpec("second", container, single=True, placement=Placement(node=node))


def test_a_container_goes_where_the_one_it_is_linked_to_is(cluster: ModelCluster) -> None:
    cluster.service("first", single=True, networks=("bridge",), placement=Placement(node="n2"))
    assert linked_node(cluster.view(), linking("first")) == "n2"
    cluster.service("free", single=True)
    assert linked_node(cluster.view(), linking("free")) == ""
    cluster.decide()
    (node,) = cluster.counts("free")
    assert linked_node(cluster.view(), linking("free")) == node
    assert linked_node(cluster.view(), linking("free", "net")) == ""
    assert linked_node(cluster.view(), linking("free", node=node)) == ""


def test_links_that_cannot_be_are_refused(cluster: ModelCluster) -> None:
    with pytest.raises(NotFound, match="--link c: no container is called c"):
        linked_node(cluster.view(), linking("c"))
    cluster.service("first", single=True, networks=("bridge",), placement=Placement(node="n2"))
    with pytest.raises(Conflict, match="--link first: first is on n2, not on n1: bridge does not reach from node to node"):
        linked_node(cluster.view(), linking("first", node="n1"))
    cluster.network("net")
    cluster.service("apart", single=True, networks=("net",))
    with pytest.raises(BadInput, match="--link apart: apart is not on the network bridge"):
        linked_node(cluster.view(), linking("apart"))


def test_a_port_is_free_where_the_last_replica_that_has_it_is_updated_not_before(cluster: ModelCluster) -> None:
    """Found by the simulation: the old version's port was given away on all nodes as soon as the new one did without."""
    port = Port(80, 9015, mode="host")
    cluster.service("old", container=ContainerSpec("x", ports=(port,)), mode="global")
    cluster.converge()
    for name, doc in cluster.docs["status"].items():
        rows = [replace(row, ports=(("80/tcp", "0.0.0.0:9015"),)) for row in doc.replicas if row.service_id == "id-old"]
        cluster.docs["status"][name] = replace(doc, replicas=tuple(rows))
    cluster.service("new", container=ContainerSpec("x", ports=(port,)), mode="global")
    cluster.change("old", version=2, spec=replace(cluster.docs["services"]["old"].spec, container=ContainerSpec("x")))
    cluster.decide()
    standing = {
        node: {row.version for entry in doc.services if entry.name == "old" for row in entry.replicas}
        for node, doc in cluster.docs["assignments"].items()
    }
    assert sorted(standing.values(), key=str) == [{1}, {2}], "one after the other"
    assert all(standing[node] == {2} for node in cluster.counts("new"))
