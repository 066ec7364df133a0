"""What a service is attached to now, over the API: connecting, scaling, links, and what inspect says of containers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.api import connections, networks, services, stacks
from controller.api.context import Api
from controller.api.network_rows import inspected
from controller.api.schemas import ConnectBody, DisconnectBody, ScaleBody
from controller.dispatch.endpoint_rows import facts_of
from model import codec
from model.documents import Assigned, AssignedService, AssignmentDoc, NetworkPlanDoc, ReplicaStatus, StatusDoc, key
from model.errors import BadInput
from model.spec import NetworkSpec
from model.states import RUNNING
from model.store_port import Put
from tests.unit.api_kit import box, call, controllers


def shop(replicas: int = 1, **network: Any) -> dict[str, Any]:
    web = {"image": "demo/web", "deploy": {"replicas": replicas}, "networks": {"default": network or None}}
    ipam = {"config": [{"subnet": "10.9.0.0/16"}]}
    return {"name": "shop", "services": {"web": web}, "networks": {"default": {"name": "shop_default", "ipam": ipam}}}


async def scale(api: Api, count: int) -> int:
    answer = await services.scale(api, call(ScaleBody(replicas=count), name="shop_web"))
    return int(answer["replicas"])


async def test_who_asks_for_an_address_is_not_scaled() -> None:
    async with controllers(1) as (api,):
        await stacks.apply(api, call(shop(ipv4_address="10.9.0.7"), stack="shop"))
        with pytest.raises(BadInput, match=r"10\.9\.0\.7 is for one container, and this service has 3 replicas"):
            await scale(api, 3)
        assert await scale(api, 0) == 0


async def test_who_was_connected_with_an_address_is_not_scaled() -> None:
    async with controllers(1) as (api,):
        await stacks.apply(api, call(shop(), stack="shop"))
        await networks.create_network(api, call(NetworkSpec("back", subnet="10.8.0.0/16")))
        await connections.connect(api, call(ConnectBody(container="shop_web", ipv4_address="10.8.0.7"), name="back"))
        with pytest.raises(BadInput, match=r"network back: address 10\.8\.0\.7 is for one container"):
            await scale(api, 2)
        with pytest.raises(BadInput, match=r"10\.8\.0\.7"):
            await stacks.apply(api, call(shop(replicas=2), stack="shop"))
        await connections.disconnect(api, call(DisconnectBody(container="shop_web"), name="back"))
        assert await scale(api, 2) == 2


async def test_aliases_of_a_connection_are_names_of_a_stacks_service() -> None:
    async with controllers(1) as (api,):
        await stacks.apply(api, call(shop(), stack="shop"))
        await networks.create_network(api, call(NetworkSpec("back")))
        await connections.connect(api, call(ConnectBody(container="shop_web", aliases=["www", "www"]), name="back"))
        snapshot = api.snapshot()
        document = snapshot.of("services")["shop_web"]
        assert document.version == 1
        assert facts_of(snapshot, document, ())["back"].names == ("shop_web", "web", "web.shop", "www")
        assert "www" not in facts_of(snapshot, document, ())["shop_default"].names


async def test_nobody_links_to_who_was_taken_off_everything() -> None:
    async with controllers(1) as (api,):
        await services.create_service(api, call(box("db")))
        await connections.disconnect(api, call(DisconnectBody(container="db"), name="bridge"))
        client = box("client")
        linking = replace(client.container, links=(("db", "db"),))
        with pytest.raises(BadInput, match="db is not on the network bridge"):
            await services.create_service(api, call(replace(client, container=linking)))


async def test_inspect_names_the_mac_and_the_tasks_of_each_service() -> None:
    async with controllers(1) as (api,):
        await stacks.apply(api, call(shop(), stack="shop"))
        service = api.snapshot().of("services")["shop_web"]
        network = api.snapshot().of("networks")["shop_default"]
        plan = NetworkPlanDoc(network.id, "shop_default", 4098, "10.9.0.0/16", (("n1", "10.9.0.0/24"),))
        assignment = AssignmentDoc("n1", 1, (AssignedService.of(service.id, "shop_web", (Assigned(1, 1, 7),)),))
        row = ReplicaStatus(service.id, 1, 1, 7, RUNNING, container_id="c" * 64, addresses=(("shop_default", "10.9.0.2/16"),))
        said = StatusDoc("n1", replicas=(row,))
        documents = (("netplans/shop_default", plan), ("assignments/n1", assignment), ("status/n1", said))
        await api.commit([], [Put(key(name), codec.encode(document)) for name, document in documents])
        found = inspected(api, network)
        assert [(item["Name"], item["MacAddress"]) for item in found["Containers"].values()] == [
            ("shop_web.1", "0a:02:0a:09:00:02")
        ]


async def test_plan_shows_the_ports_that_would_be_published() -> None:
    async with controllers(1) as (api,):
        project = shop()
        project["services"]["web"]["ports"] = [{"target": 80, "published": "8080"}, {"target": 81}]
        answer = await stacks.plan(api, call(project, stack="shop"))
        assert answer["published"] == [
            {"service": "shop_web", "port": "8080->80/tcp"}, {"service": "shop_web", "port": "30000->81/tcp"},
        ]  # fmt: skip
