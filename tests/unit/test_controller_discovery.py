"""What Prometheus is told to scrape: who may be up, reached where, under which labels."""

from __future__ import annotations

from dataclasses import replace

from controller.api.discovery import agents, controllers, replicas
from model.autoscale import MetricsPort
from model.documents import ControllerDoc, NodeInfo
from tests.unit.test_controller_metrics import Documents, cluster, run, service, snapshot


def reached(documents: Documents, **addresses: str) -> Documents:
    """The nodes' agents tell their metrics at these addresses."""
    for node, address in addresses.items():
        status = documents["status"][node]
        documents["status"][node] = replace(status, info=NodeInfo(metrics=address))
    return documents


def three_nodes() -> Documents:
    web = service("shop_web", 3)
    web = replace(web, spec=replace(web.spec, stack="shop", metrics=MetricsPort(9100, "/m")))
    documents = cluster(web, service("shop_db", 1), n1="ready", n2="unreachable", n3="down")
    run(documents, "n1", "shop_web", (1, 1, "running", ""), (2, 1, "preparing", ""))
    run(documents, "n1", "shop_db", (1, 1, "running", ""))
    run(documents, "n2", "shop_web", (3, 1, "running", ""))
    run(documents, "n3", "shop_web", (4, 1, "running", ""))
    return documents


def test_agents_are_told_unless_they_are_down_or_tell_nothing() -> None:
    documents = reached(three_nodes(), n1="10.0.0.1:7446", n3="10.0.0.3:7446")
    assert agents(snapshot(documents)) == [{"targets": ["10.0.0.1:7446"], "labels": {"node": "n1"}}]
    documents = reached(documents, n2="10.0.0.2:7446")
    assert [row["labels"]["node"] for row in agents(snapshot(documents))] == ["n1", "n2"]


def test_replicas_that_run_are_reached_through_their_node() -> None:
    documents = reached(three_nodes(), n1="10.0.0.1:7446", n2="10.0.0.2:7446", n3="10.0.0.3:7446")
    found = replicas(snapshot(documents))
    assert [row["labels"]["replica"] for row in found] == ["shop_web.1", "shop_web.3"]
    assert found[1] == {
        "targets": ["10.0.0.2:7446"],
        "labels": {
            "service": "shop_web", "stack": "shop", "replica": "shop_web.3", "node": "n2", "instance": "shop_web.3",
            "__metrics_path__": "/replicas/shop_web.3/metrics", "__param_port": "9100", "__param_path": "/m",
        },
    }  # fmt: skip


def test_a_global_service_has_its_nodes_name_in_its_replicas() -> None:
    documents = three_nodes()
    web = documents["services"]["shop_web"]
    documents["services"]["shop_web"] = replace(web, spec=replace(web.spec, mode="global"))
    found = replicas(snapshot(reached(documents, n2="10.0.0.2:7446")))
    assert [row["labels"]["replica"] for row in found] == ["shop_web.n2"]


def test_a_replica_of_an_earlier_service_of_that_name_is_not_told() -> None:
    documents = reached(three_nodes(), n1="10.0.0.1:7446")
    documents["services"]["shop_web"] = replace(documents["services"]["shop_web"], id="another")
    assert replicas(snapshot(documents)) == []


def test_controllers_are_told_where_their_api_answers() -> None:
    documents = cluster()
    documents["controllers"] = {"b": ControllerDoc("b", "c2", "https://[fd00::2]:7443"), "a": ControllerDoc("a", "c1")}
    assert controllers(snapshot(documents)) == [{"targets": ["[fd00::2]:7443"], "labels": {"controller": "c2"}}]
