"""Of two controllers that write at the same moment, the second looks again: ports, networks and who is on them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from controller.api import connections, networks, services, stacks
from controller.api.schemas import ConnectBody
from model.documents import PREFIX
from model.errors import BadInput, Conflict, NotFound
from model.spec import NetworkSpec, Port
from tests.unit.api_kit import box, call, controllers


def project(name: str, port: int) -> dict[str, Any]:
    service = {"image": "demo/web", "ports": [{"target": 80, "published": str(port), "protocol": "tcp", "mode": "ingress"}]}
    return {"name": name, "services": {"web": {**service, "command": None, "entrypoint": None, "networks": {"default": None}}},
            "networks": {"default": {"name": f"{name}_default", "ipam": {}}}}  # fmt: skip


async def outcomes(*writes: Awaitable[Any]) -> list[Exception]:
    """What was refused of writes that begin at the same moment."""
    answers = await asyncio.gather(*writes, return_exceptions=True)
    return [answer for answer in answers if isinstance(answer, Exception)]


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_a_port_has_one_owner(count: int) -> None:
    async with controllers(count) as apis:
        port = Port(80, 8080)
        refused = await outcomes(*(
            services.create_service(api, call(box(f"box{number}", "", port))) for number, api in enumerate([*apis, apis[0]])
        ))  # fmt: skip
        assert len(refused) == count
        for error in refused:
            assert isinstance(error, Conflict)
            assert "port 8080/tcp is published by box" in str(error)


async def test_of_two_stacks_with_one_port_the_second_is_refused() -> None:
    async with controllers(2) as (one, two):
        refused = await outcomes(
            stacks.apply(one, call(project("blue", 8080), stack="blue")),
            stacks.apply(two, call(project("red", 8080), stack="red")),
        )
        assert [type(error) for error in refused] == [Conflict]
        assert "blue_web" in str(refused[0])
        assert "red_web" in str(refused[0])


@pytest.mark.parametrize("prune", [False, True])
async def test_a_network_does_not_go_while_somebody_comes(prune: bool) -> None:
    for comes_first in (True, False):
        async with controllers(2) as (one, two):
            await networks.create_network(one, call(NetworkSpec("mine")))
            await two.wait_after(("networks",), 1, 5.0)
            comes = services.create_service(one, call(box("box", "mine")))
            goes = networks.prune_networks(two, call()) if prune else networks.remove_network(two, call(name="mine"))
            await outcomes(*((comes, goes) if comes_first else (goes, comes)))
            await one.wait_after(("services", "networks"), one.index(("services", "networks")), 0.05)
            there = {entry.key for entry in (await one.store.list(PREFIX)).entries}
            assert (PREFIX + "services/box" in there) == (PREFIX + "networks/mine" in there)


async def test_nobody_is_connected_to_a_network_that_goes() -> None:
    async with controllers(2) as (one, two):
        await networks.create_network(one, call(NetworkSpec("mine")))
        await services.create_service(one, call(box("box")))
        await two.wait_after(("services",), 1, 5.0)
        refused = await outcomes(
            networks.remove_network(one, call(name="mine")),
            connections.connect(two, call(ConnectBody(container="box"), name="mine")),
        )
        assert [type(error) for error in refused] in ([NotFound], [Conflict])


async def test_two_networks_never_get_one_subnet() -> None:
    async with controllers(2) as (one, two):
        refused = await outcomes(
            networks.create_network(one, call(NetworkSpec("one", subnet="10.9.0.0/16"))),
            networks.create_network(two, call(NetworkSpec("two", subnet="10.9.1.0/24"))),
        )
        assert [type(error) for error in refused] == [Conflict]
        assert "10.9.0.0/16" in str(refused[0])
        with pytest.raises(BadInput):
            await services.create_service(one, call(box("box", "nowhere")))
