"""Generic resources: what nodes are said to have is given to so many replicas, across passes, and explained."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.decide.explain import explain_node, explain_service
from model.codec import decode, encode
from model.documents import NodeDoc, ServiceDoc
from model.spec import Counts, Resources
from model.spec_check import service_problems
from tests.scenarios.model_cluster import ModelCluster

GPU: Counts = (("gpu", 1),)


@pytest.fixture
def cluster() -> ModelCluster:
    cluster = ModelCluster()
    cluster.node("n1", generic=(("gpu", 2),))
    cluster.node("n2", generic=(("fpga", 1), ("gpu", 4)))
    cluster.node("n3")
    return cluster


def asks(cluster: ModelCluster, name: str, scale: int, generic: Counts, **changes: object) -> None:
    doc = cluster.service(name, scale, **changes)
    cluster.docs["services"][name] = replace(doc, spec=replace(doc.spec, reservations=Resources(generic=generic)))


def test_what_one_service_has_another_does_not_get(cluster: ModelCluster) -> None:
    asks(cluster, "train", 2, (("gpu", 2),))
    cluster.converge()
    assert cluster.counts("train") == {"n1": 1, "n2": 1}
    asks(cluster, "serve", 3, GPU)
    cluster.converge()
    assert cluster.counts("serve") == {"n2": 2}
    assert cluster.docs["decisions"]["serve"].waiting == ((3, "3 nodes: not enough gpu"),)
    assert "each replica reserves 1 gpu" in explain_service(cluster.view(), "serve", cluster.settings, cluster.now_ms).lines
    assert any(line.endswith(", 0 of 1 fpga, 4 of 4 gpu") for line in explain_node(cluster.view(), "n2").lines)
    cluster.change("train", scale=1)
    cluster.converge()
    assert sum(cluster.counts("serve").values()) == 3
    assert cluster.decide().empty()


def test_a_node_that_is_said_to_have_some_takes_who_waits(cluster: ModelCluster) -> None:
    asks(cluster, "code", 2, (("fpga", 1),))
    cluster.converge()
    assert cluster.counts("code") == {"n2": 1}
    cluster.docs["nodes"]["n3"] = replace(cluster.docs["nodes"]["n3"], generic=(("fpga", 1),))
    cluster.converge()
    assert cluster.counts("code") == {"n2": 1, "n3": 1}


def test_a_global_service_stands_where_there_are_some(cluster: ModelCluster) -> None:
    asks(cluster, "exporter", 1, GPU, mode="global")
    cluster.converge()
    assert cluster.counts("exporter") == {"n1": 1, "n2": 1}


def test_documents_keep_them_and_bad_ones_are_told(cluster: ModelCluster) -> None:
    asks(cluster, "train", 1, (("fpga", 1), ("gpu", 2)))
    node, service = cluster.docs["nodes"]["n2"], cluster.docs["services"]["train"]
    assert decode(NodeDoc, encode(node)) == node
    assert decode(ServiceDoc, encode(service)) == service
    assert not service_problems(service.spec)
    for bad in ((("", 1),), (("gpu", 0),), (("gpu", 1), ("gpu", 2))):
        assert "generic_resources" in service_problems(replace(service.spec, reservations=Resources(generic=bad)))[0]
