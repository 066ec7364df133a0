"""Stacks over HTTPS: plan, apply, change, prune, remove; networks and volumes with them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.contract.controller_harness import Client, ControllerProcess, Node, eventually

pytestmark = [pytest.mark.contract, pytest.mark.timeout(120)]


def project(name: str, **services: Any) -> dict[str, Any]:
    return {
        "name": name,
        "services": services,
        "networks": {"default": {"name": f"{name}_default"}},
        "volumes": {"data": {"name": f"{name}_data"}},
    }


def web(replicas: int = 2, **more: Any) -> dict[str, Any]:
    return {"image": "busybox", "networks": {"default": None}, "deploy": {"replicas": replicas}, **more}


def actions(answer: Any) -> dict[str, str]:
    return {f"{row['kind']}/{row['name']}": row["action"] for row in answer["changes"]}


def test_a_stack_from_plan_to_removal(operator: Client) -> None:
    wanted = project("shop", web=web(), db=web(1, volumes=[{"type": "volume", "source": "data", "target": "/data"}]))
    planned = operator.ok("POST", "/v1/stacks/shop/plan", wanted)
    expected = {
        "network/shop_default": "create",
        "volume/shop_data": "create",
        "service/shop_db": "create",
        "service/shop_web": "create",
    }
    assert actions(planned) == expected
    assert len(planned["waiting"]) == 3, "there is no node yet, and it says so"
    assert operator.get("/v1/stacks/shop")[0] == 404, "a plan writes nothing"
    assert actions(operator.ok("PUT", "/v1/stacks/shop", wanted)) == expected
    again = operator.ok("PUT", "/v1/stacks/shop", wanted)
    assert set(actions(again).values()) == {"none"}
    (row,) = operator.ok("GET", "/v1/stacks")
    assert (row["name"], row["services"], row["wanted"]) == ("shop", 2, 3)
    found = operator.ok("GET", "/v1/stacks/shop")
    assert [row["name"] for row in found["networks"]] == ["shop_default"]
    assert [row["name"] for row in found["volumes"]] == ["shop_data"]
    changed = operator.ok("PUT", "/v1/stacks/shop", project("shop", web=web(3, command=["sleep", "1"])))
    assert actions(changed)["service/shop_db"] == "remove"
    assert actions(changed)["service/shop_web"] == "update"
    assert operator.ok("GET", "/v1/services/shop_web")["version"] == 2
    assert operator.get("/v1/services/shop_db")[0] == 404
    removed = operator.ok("DELETE", "/v1/stacks/shop")["removed"]
    assert removed == {"services": ["shop_web"], "networks": ["shop_default"], "volumes": []}
    assert operator.ok("GET", "/v1/services") == []
    assert [row["name"] for row in operator.ok("GET", "/v1/volumes")] == ["shop_data"], "data stays"
    operator.ok("DELETE", "/v1/volumes/shop_data")
    assert operator.ok("GET", "/v1/volumes") == []


def test_every_problem_of_a_project_is_told(operator: Client) -> None:
    bad = {"name": "bad", "services": {"a": {"image": 6}, "b": {"image": 5}}}
    status, answer = operator.request("PUT", "/v1/stacks/bad", bad)
    assert status == 400
    assert answer["error"]["code"] == "bad_input"
    assert len(answer["error"]["problems"]) >= 2


def test_another_stacks_things_are_not_taken(operator: Client) -> None:
    operator.ok("PUT", "/v1/stacks/own", project("own", web=web(0)))
    thief = project("thief", web=web(0))
    thief["networks"]["default"]["name"] = "own_default"
    status, answer = operator.request("PUT", "/v1/stacks/thief", thief)
    assert (status, answer["error"]["code"]) == (409, "conflict")
    operator.ok("DELETE", "/v1/stacks/own?volumes=true")


def test_a_stack_of_many_services_needs_several_transactions(operator: Client) -> None:
    many = project("many", **{f"s{number}": web(0) for number in range(150)})
    operator.ok("PUT", "/v1/stacks/many", many)
    assert len(operator.ok("GET", "/v1/services?stack=many")) == 150
    removed = operator.ok("DELETE", "/v1/stacks/many?volumes=true")["removed"]
    assert (len(removed["services"]), removed["volumes"]) == (150, ["many_data"])
    assert operator.ok("GET", "/v1/services?stack=many") == []


async def test_networks_and_peers_reach_the_nodes(controller: ControllerProcess, operator: Client) -> None:
    first, second = Node(controller, "n1"), Node(controller, "n2")
    async with first.session():
        await asyncio.to_thread(operator.ok, "PUT", "/v1/stacks/net", project("net", web=web(1)))
        await first.until(lambda: first.slots() == 1)
        await first.until(lambda: "net_default" in first.networks)
        assert not first.networks["net_default"].peers
        async with second.session():
            await asyncio.to_thread(eventually, lambda: operator.ok("GET", "/v1/nodes/n2")["state"] == "ready")
            await asyncio.to_thread(operator.ok, "POST", "/v1/services/net_web/scale", {"replicas": 2})
            await second.until(lambda: second.slots() == 1)
            await first.until(lambda: first.networks["net_default"].peers)
            mine, theirs = first.networks["net_default"], second.networks["net_default"]
            assert [(peer.node, peer.slice) for peer in mine.peers] == [("n2", theirs.slice)]
            assert [(peer.node, peer.slice) for peer in theirs.peers] == [("n1", mine.slice)]
            assert mine.vni == theirs.vni
            *own, row = await asyncio.to_thread(operator.ok, "GET", "/v1/networks")
            assert [(net["name"], net["driver"]) for net in own] == [("bridge", "bridge"), ("host", "host"), ("none", "null")]
            assert (row["nodes"], row["subnet"], row["vni"]) == (["n1", "n2"], mine.subnet, mine.vni)
            await asyncio.to_thread(operator.ok, "DELETE", "/v1/stacks/net?volumes=true")
            await first.until(lambda: not first.networks and not first.desired)
            await second.until(lambda: not second.networks and not second.desired)


async def test_volumes_that_cannot_be_removed_are_kept_and_the_removal_can_be_repeated(
    controller: ControllerProcess, operator: Client
) -> None:
    node = Node(controller, "keeper")  # it has no agent's service that could remove anything
    database = web(1, volumes=[{"type": "volume", "source": "data", "target": "/data"}])
    database["deploy"]["placement"] = {"constraints": ["node.hostname==keeper"]}
    async with node.session():
        await asyncio.to_thread(operator.ok, "PUT", "/v1/stacks/kept", project("kept", db=database))
        await node.until(lambda: node.slots() == 1)
        for _ in range(2):
            status, answer = await asyncio.to_thread(operator.request, "DELETE", "/v1/stacks/kept?volumes=true")
            assert (status, answer["error"]["code"]) == (503, "unavailable")
            assert "volume kept_data is still on node keeper" in answer["error"]["message"]
            assert [row["name"] for row in await asyncio.to_thread(operator.ok, "GET", "/v1/volumes")] == ["kept_data"]
        assert await asyncio.to_thread(operator.ok, "GET", "/v1/services") == []
        await asyncio.to_thread(operator.ok, "DELETE", "/v1/volumes/kept_data?force=true")
        status, _ = await asyncio.to_thread(operator.request, "DELETE", "/v1/stacks/kept?volumes=true")
        assert status == 404
