"""Networks and published ports over HTTPS, with nodes whose agents are played: making, connecting, counting, removing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from grpc import aio

from protos import node_pb2 as pb
from tests.contract.controller_harness import (
    INFO,
    Client,
    ControllerProcess,
    Node,
    controller_process,
    eventually,
    service_body,
)

pytestmark = [pytest.mark.contract, pytest.mark.timeout(120)]


@pytest.fixture
def operator(controller: ControllerProcess) -> Iterator[Client]:
    """Leaves no service and no network behind."""
    client = controller.operator()
    yield client
    for row in client.ok("GET", "/v1/services"):
        client.ok("DELETE", f"/v1/services/{row['name']}")
    client.ok("POST", "/v1/networks/prune")


def refused(operator: Client, method: str, path: str, body: Any = None) -> tuple[int, str]:
    status, answer = operator.request(method, path, body)
    assert set(answer) == {"error"}, answer
    assert "\n" not in answer["error"]["message"]
    return status, answer["error"]["message"]


def body(name: str, network: str = "", **container: Any) -> dict[str, Any]:
    found = service_body(name, single=True)
    found["container"] |= {"networks": [{"network": network}] if network else [], **container}
    return found


# ---- without a node


def test_the_three_that_are_always_there(operator: Client) -> None:
    rows = operator.ok("GET", "/v1/networks")
    assert [(row["name"], row["driver"], row["scope"]) for row in rows] == [
        ("bridge", "bridge", "local"), ("host", "host", "local"), ("none", "null", "local"),
    ]  # fmt: skip
    for row in rows:
        found = operator.ok("GET", f"/v1/networks/{row['id'][:12]}")
        assert (found["Name"], found["Driver"], found["Containers"]) == (row["name"], row["driver"], {})
        assert refused(operator, "DELETE", f"/v1/networks/{row['name']}")[0] == 400
        assert refused(operator, "POST", "/v1/networks", {"name": row["name"]})[0] == 409


def test_a_network_is_made_found_by_its_id_and_removed(operator: Client) -> None:
    wanted = {"name": "mine", "driver": "bridge", "subnet": "10.99.7.0/24", "labels": [["a", "1"]], "internal": True}
    made = operator.ok("POST", "/v1/networks", wanted)
    assert made["name"] == "mine"
    found = operator.ok("GET", f"/v1/networks/{made['id'][:5]}")
    assert (found["Id"], found["Driver"], found["Scope"], found["Internal"]) == (made["id"], "bridge", "swarm", True)
    assert (found["IPAM"]["Config"], found["Labels"]) == ([{"Subnet": "10.99.7.0/24"}], {"a": "1"})
    assert refused(operator, "POST", "/v1/networks", {"name": "mine"})[0] == 409
    status, message = refused(operator, "POST", "/v1/networks", {"name": "again", "subnet": "10.99.7.128/25"})
    assert (status, "network mine" in message) == (409, True)
    assert operator.ok("DELETE", f"/v1/networks/{made['id']}")["name"] == "mine"
    assert operator.get("/v1/networks/mine")[0] == 404


@pytest.mark.parametrize(
    ("wanted", "word"),
    [
        ({"name": "no/name"}, "network name"),
        ({"name": "ingress"}, "shoal's own"),
        ({"name": "odd", "driver": "macvlan"}, "macvlan"),
        ({"name": "odd", "subnet": "10.0.0.0/99"}, "10.0.0.0/99"),
        ({"name": "odd", "options": [["encrypted", ""]]}, "encrypted"),
        ({"name": "odd", "stack": "shop"}, "apply the stack"),
        ({"name": "odd", "external": True}, "external"),
    ],
)
def test_what_is_no_network_is_refused_with_the_reason(operator: Client, wanted: dict[str, Any], word: str) -> None:
    status, message = refused(operator, "POST", "/v1/networks", wanted)
    assert (status, word in message) == (400, True), message


def test_a_network_in_use_names_its_users_and_prune_keeps_it(operator: Client) -> None:
    for name in ("used", "spare"):
        operator.ok("POST", "/v1/networks", {"name": name})
    operator.ok("POST", "/v1/services", body("box", "used"))
    status, message = refused(operator, "DELETE", "/v1/networks/used")
    assert (status, "box" in message) == (409, True)
    assert operator.ok("POST", "/v1/networks/prune") == {"removed": ["spare"]}
    operator.ok("DELETE", "/v1/services/box")
    assert operator.ok("POST", "/v1/networks/prune") == {"removed": ["used"]}


def test_a_stacks_network_goes_with_its_stack(operator: Client) -> None:
    wanted = {"name": "shop", "services": {"web": {"image": "busybox"}}, "networks": {"default": {"name": "shop_default"}}}
    operator.ok("PUT", "/v1/stacks/shop", wanted)
    status, message = refused(operator, "DELETE", "/v1/networks/shop_default")
    assert (status, "stack shop" in message) == (409, True)
    operator.ok("DELETE", "/v1/stacks/shop")


def test_connecting_changes_the_attachments_and_no_version(operator: Client) -> None:
    operator.ok("POST", "/v1/networks", {"name": "one", "subnet": "10.99.8.0/24"})
    operator.ok("POST", "/v1/services", body("box"))
    asked = {"container": "box.1", "aliases": ["b"], "ipv4_address": "10.99.8.9", "links": [["box", "box"]]}
    assert refused(operator, "POST", "/v1/networks/one/connect", asked)[0] == 404
    done = operator.ok("POST", "/v1/networks/one/connect", {**asked, "container": "box"})
    assert (done["network"], done["service"], done["index"] > 0) == ("one", "box", True)
    assert operator.ok("GET", "/v1/services/box")["version"] == 1
    assert refused(operator, "POST", "/v1/networks/one/connect", {"container": "box"})[0] == 409
    assert refused(operator, "DELETE", "/v1/networks/one")[0] == 409
    operator.ok("POST", "/v1/networks/bridge/disconnect", {"container": "box"})
    assert refused(operator, "POST", "/v1/networks/bridge/disconnect", {"container": "box"})[0] == 409
    operator.ok("POST", "/v1/networks/bridge/disconnect", {"container": "box", "force": True})
    operator.ok("POST", "/v1/networks/one/disconnect", {"container": "box"})
    operator.ok("POST", "/v1/networks/bridge/connect", {"container": "box"})
    operator.ok("DELETE", "/v1/networks/one")


def test_what_cannot_be_connected(operator: Client) -> None:
    operator.ok("POST", "/v1/networks", {"name": "one", "subnet": "10.99.8.0/24"})
    operator.ok("POST", "/v1/networks", {"name": "closed", "attachable": False})
    for name, network in (("box", ""), ("other", "one"), ("shared", "host"), ("lonely", "none")):
        operator.ok("POST", "/v1/services", body(name, network))
    cases = [
        ("one", {"container": "shared"}, 400, "machine's network"),
        ("one", {"container": "lonely"}, 400, "without a network"),
        ("host", {"container": "box"}, 400, "network host"),
        ("closed", {"container": "box"}, 400, "not attachable"),
        ("bridge", {"container": "other", "aliases": ["x"]}, 400, "bridge"),
        ("one", {"container": "box", "ipv4_address": "10.98.0.1"}, 400, "10.99.8.0/24"),
        ("one", {"container": "box", "ipv4_address": "nowhere"}, 400, "no IPv4 address"),
        ("one", {"container": "box", "ipv4_address": "10.99.8.0"}, 400, "is the first of its subnet 10.99.8.0/24"),
        ("one", {"container": "box", "ipv4_address": "10.99.8.255"}, 400, "is the broadcast address"),
        ("one", {"container": "box", "links": [["other", "alias"]]}, 400, "--alias alias"),
        ("one", {"container": "nobody"}, 404, "nobody"),
        ("nowhere", {"container": "box"}, 404, "nowhere"),
    ]
    for network, asked, status, word in cases:
        found = refused(operator, "POST", f"/v1/networks/{network}/connect", asked)
        assert (found[0], word in found[1]) == (status, True), found
    assert refused(operator, "POST", "/v1/networks/host/disconnect", {"container": "shared"})[0] == 400


def test_what_a_container_cannot_have_is_refused_when_it_is_made(operator: Client) -> None:
    port = {"target": 80, "published": 8080}
    operator.ok("POST", "/v1/networks", {"name": "closed", "attachable": False})
    operator.ok("POST", "/v1/services", body("first", ports=[port]))
    status, message = refused(operator, "POST", "/v1/services", body("second", ports=[port]))
    assert (status, "8080" in message, "first" in message, "second" in message) == (409, True, True, True)
    assert "not attachable" in refused(operator, "POST", "/v1/services", body("second", "closed"))[1]
    assert refused(operator, "POST", "/v1/services", body("second", links=[["nobody", "x"]]))[0] == 404


# ---- with nodes


class CountingAgent:
    """An agent that only counts."""

    def __init__(self, rows: list[dict[str, Any]], *, hangs: bool = False) -> None:
        self.rows, self.hangs = rows, hangs

    async def traffic(self, request: pb.Empty, context: Any) -> pb.Json:
        if self.hangs:
            await asyncio.Event().wait()
        return pb.Json(json=json.dumps(self.rows).encode())


@contextlib.asynccontextmanager
async def noded(controller: ControllerProcess, name: str, agent: CountingAgent, **about: Any) -> AsyncIterator[Node]:
    """A node that reports what it is told to run, with the networks and ports in `about`."""
    node = Node(controller, name)
    node.__dict__.update(about)
    server = aio.server()
    credentials = grpc.ssl_server_credentials(
        [(node.key, node.joined["certificate"].encode())], node.joined["ca"].encode(), require_client_auth=True
    )
    handler = grpc.unary_unary_rpc_method_handler(agent.traffic, pb.Empty.FromString, pb.Json.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shoal.node.v1.Agent", {"Traffic": handler}),))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        info = {**INFO, "address": f"127.0.0.1:{port}"}
        async with node.session(pb.Hello(node=name, info=json.dumps(info).encode())):
            await asyncio.to_thread(eventually, lambda: _ready(controller, name))
            yield node
    finally:
        await server.stop(None)


def _ready(controller: ControllerProcess, name: str) -> bool:
    return bool(controller.operator().ok("GET", f"/v1/nodes/{name}")["state"] == "ready")


def placed(name: str, node: str, **more: Any) -> dict[str, Any]:
    found = service_body(name, placement={"constraints": [f"node.hostname=={node}"]})
    found["container"] |= {"networks": [{"network": "net"}], **more}
    return found


async def test_published_ports_reach_every_node_and_every_row() -> None:
    with controller_process("--node-timeout", "3s") as controller:
        operator = controller.operator()
        await asyncio.to_thread(operator.ok, "POST", "/v1/networks", {"name": "net", "subnet": "10.99.0.0/16"})
        host_port = pb.Port(target="90/tcp", published="0.0.0.0:32768")
        about = {"addresses": ("net",), "ports": (host_port,)}
        async with noded(controller, "n1", CountingAgent([]), **about) as n1, noded(controller, "n2", CountingAgent([])) as n2:
            ports = [{"target": 80, "published": 8080}, {"target": 90, "mode": "host"}]
            await asyncio.to_thread(operator.ok, "POST", "/v1/services", placed("web", "n1", ports=ports))
            await n2.until(lambda: n2.reached("ingress", "web"))
            (endpoint,) = n2.reached("ingress", "web")
            assert (endpoint.network, endpoint.node, endpoint.underlay, endpoint.ready) == ("net", "n1", "127.0.0.1", True)
            (told,) = n2.endpoints["ingress"].values()
            assert [(port.published, port.target, port.protocol) for port in told.ports] == [(8080, 80, "tcp")]
            await n1.until(lambda: n1.reached("net", "web"))
            vip = next(iter(n1.endpoints["net"].values())).vip
            await asyncio.to_thread(_rows_of_ports, operator, vip)
            await asyncio.to_thread(operator.ok, "POST", "/v1/services/web/stop")
            await n2.until(lambda: not n2.reached("ingress", "web"))
            await n1.until(lambda: n1.floor > 0)


def _rows_of_ports(operator: Client, vip: str) -> None:
    row = operator.ok("GET", "/v1/services/web")
    assert vip
    assert row["vips"] == {"net": vip}
    assert row["ports"] == [{"target": 80, "published": 8080}, {"target": 90, "mode": "host"}]
    (replica,) = operator.ok("GET", "/v1/replicas?service=web")
    assert replica["ports"] == ["0.0.0.0:8080->80/tcp", "0.0.0.0:32768->90/tcp"]
    shown = ("mode", "target", "published", "node", "text")
    for path in ("/v1/services/web/ports", "/v1/replicas/web.1/ports"):
        assert [tuple(port[name] for name in shown) for port in operator.ok("GET", path)] == [
            ("ingress", 80, 8080, "", "80/tcp -> 0.0.0.0:8080 on every node"),
            ("host", 90, 32768, "n1", "90/tcp -> 0.0.0.0:32768 on n1"),
        ]  # fmt: skip
    found = operator.ok("GET", "/v1/networks/net")
    (container,) = found["Containers"].values()
    address = f"{replica['networks']['net']}/24"
    assert (container["Name"], container["Node"], container["IPv4Address"]) == ("web.1", "n1", address)
    assert found["Services"]["web"]["VIP"] == vip
    assert found["IPAM"]["Config"][0]["Gateway"] == found["Gateways"]["n1"]


async def test_a_running_container_is_rewired_and_its_names_follow() -> None:
    with controller_process("--node-timeout", "3s") as controller:
        operator = controller.operator()
        for name in ("net", "second"):
            await asyncio.to_thread(operator.ok, "POST", "/v1/networks", {"name": name})
        async with noded(controller, "n1", CountingAgent([]), addresses=("net", "second")) as n1:
            await asyncio.to_thread(operator.ok, "POST", "/v1/services", placed("web", "n1"))
            await n1.until(lambda: n1.reached("net", "web"))
            asked = {"container": "web.1", "aliases": ["front"]}
            await asyncio.to_thread(operator.ok, "POST", "/v1/networks/second/connect", asked)
            await n1.until(lambda: n1.reached("second", "web"))
            (service,) = n1.desired.values()
            assert (service.rewired, [item.network for item in service.networks]) == (True, ["net", "second"])
            assert "second" in n1.networks
            assert "front" in next(iter(n1.endpoints["second"].values())).names
            await asyncio.to_thread(operator.ok, "POST", "/v1/networks/net/disconnect", {"container": "web"})
            await n1.until(lambda: not n1.reached("net", "web"))
            await n1.until(lambda: [item.network for item in next(iter(n1.desired.values())).networks] == ["second"])


async def test_traffic_is_the_sum_of_all_nodes_and_names_who_did_not_answer() -> None:
    with controller_process("--node-timeout", "5s") as controller:
        operator = controller.operator()
        made = await asyncio.to_thread(operator.ok, "POST", "/v1/services", service_body("web", replicas=0))
        counts = {"connections": 2, "packets_in": 3, "bytes_in": 5, "packets_out": 7, "bytes_out": 11}
        about = {"service_id": made["id"], "service": "web", "address": "10.1.0.2", **counts}
        rows = [{**about, "replica": "web.1"}, {**about, "replica": "web.2"}, {**about, "replica": "x", "service_id": "other"}]
        async with (
            noded(controller, "n1", CountingAgent(rows)),
            noded(controller, "n2", CountingAgent(rows[:1])),
            noded(controller, "n3", CountingAgent([], hangs=True)),
        ):
            found = await asyncio.to_thread(operator.ok, "GET", "/v1/services/web/traffic")
        assert [(row["replica"], row["connections"], row["bytes_out"]) for row in found["replicas"]] == [
            ("web.1", 4, 22), ("web.2", 2, 11),
        ]  # fmt: skip
        assert (found["connections"], found["bytes_in"], found["missing"]) == (6, 15, ["n3"])
        assert (await asyncio.to_thread(operator.get, "/v1/services/none/traffic"))[0] == 404
