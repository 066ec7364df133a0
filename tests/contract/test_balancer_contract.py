"""What both balancers promise of floors, drains and ports. Rules go nowhere here: what they do in a kernel is shown by
tests/root/test_network_balancer.py."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from typing import Any, cast

import pytest

from agent.core.clock import RealClock
from agent.network.balance_memory import MemoryBalancer, Sending, Tables
from agent.network.balance_port import Balancer, LocalPort
from agent.network.balancer import KernelBalancer
from agent.network.nft import Nft
from agent.plan.names import EndpointName, EndpointsMessage, ServiceNames
from agent.plan.network import NetworkWanted, link_plan
from agent.plan.nflog import Call
from model.errors import Conflict
from model.spec import Port
from tests.patience import PATIENCE

pytestmark = pytest.mark.contract
WAIT_S = 10.0 * PATIENCE
PLANS = {"net": link_plan(NetworkWanted("net", 7, "10.0.0.0/16", "10.0.1.0/24"), 1500)}


class Rules:
    def run(self, text: str) -> str:
        return ""

    def counts(self, table: str, name: str) -> dict[str, tuple[int, int]]:
        return {}


class NoConnections:
    def delete_where(self, *_: Any, **__: Any) -> int:
        return 0

    def open_connections(self, addresses: Iterable[str]) -> dict[str, int]:
        return dict.fromkeys(addresses, 0)

    def balanced(self, *, six: bool) -> dict[str, int]:
        return {}

    def close(self) -> None:
        """Nothing was opened."""


@pytest.fixture(params=["memory", "kernel"])
async def balancer(request: pytest.FixtureRequest) -> AsyncIterator[Balancer]:
    if request.param == "memory":
        memory = MemoryBalancer("n1", RealClock())
        yield memory
        await memory.close()
        return
    kernel = KernelBalancer(cast(Nft, Rules()), "n1", NoConnections(), RealClock(), lambda *_: None)
    kernel._task = asyncio.ensure_future(kernel._run())  # `open` would take over this machine's own table
    yield kernel
    await kernel.close()


def web(*addresses: str, number: int = 1, service: str = "web", **rest: Any) -> EndpointsMessage:
    endpoints = tuple(EndpointName(f"{service}.{address}", address, "n2") for address in addresses)
    names = ServiceNames(f"id-{service}", service, endpoints=endpoints, vip="10.0.200.1")
    return EndpointsMessage("net", False, (names,), number=number, **rest)


async def test_what_is_applied_is_numbered_and_a_new_session_begins_anew(balancer: Balancer) -> None:
    async with asyncio.timeout(WAIT_S):
        balancer.networks(PLANS)
        balancer.take(web("10.0.2.2", number=3))
        assert await balancer.applied(0) == 3
        balancer.floor(0)
        waiting = asyncio.ensure_future(balancer.applied(0))
        balancer.take(web("10.0.2.2", "10.0.2.3", number=1))
        assert await waiting == 1


async def test_an_address_is_forgotten_when_every_node_follows(balancer: Balancer) -> None:
    assert not balancer.forgotten("net", "10.0.2.9"), "nobody has said what an earlier agent left"
    balancer.take(web("10.0.2.2", number=3))
    balancer.floor(3)
    assert balancer.forgotten("net", "10.0.2.9")
    assert not balancer.forgotten("net", "10.0.2.2")
    balancer.take(web(number=4))
    assert not balancer.forgotten("net", "10.0.2.2")
    balancer.floor(4)
    assert balancer.forgotten("net", "10.0.2.2")


async def test_what_went_before_a_new_session_is_forgotten_with_its_first_floor(balancer: Balancer) -> None:
    balancer.take(web("10.0.2.2", number=8))
    balancer.take(web(number=9))
    balancer.floor(0)
    assert not balancer.forgotten("net", "10.0.2.2")
    balancer.floor(1)
    assert balancer.forgotten("net", "10.0.2.2")


async def test_a_drain_waits_for_the_floor_and_for_nobody_who_was_never_told_of(balancer: Balancer) -> None:
    async with asyncio.timeout(WAIT_S):
        await balancer.drained([("net", "10.0.2.2")], WAIT_S)
        balancer.take(web("10.0.2.2", number=3))
        draining = asyncio.ensure_future(balancer.drained([("net", "10.0.2.2")], WAIT_S))
        balancer.take(web(number=4))
        await balancer.applied(0)
        assert not draining.done()
        balancer.floor(4)
        await draining


async def test_who_calls_a_sleeping_service_is_counted_until_it_wakes(balancer: Balancer) -> None:
    asleep = ServiceNames("id-web", "web", vip="10.0.200.1", sleeping=True)
    async with asyncio.timeout(WAIT_S):
        balancer.networks(PLANS)
        balancer.take(EndpointsMessage("net", True, (asleep,), number=1))
        await balancer.applied(0)
        waiting = asyncio.ensure_future(balancer.held({}))
        for caller in ("10.0.1.2", "10.0.1.3", "10.0.1.2"):
            call(balancer, "10.0.200.1", caller)
        call(balancer, "10.0.200.9", "10.0.1.4")
        assert await waiting == {"id-web": 2}
        balancer.take(web("10.0.2.2", number=2))
        assert await balancer.held({"id-web": 2}) == {}


def call(balancer: Balancer, address: str, caller: str) -> None:
    """What the kernel's log says of somebody's first packet."""
    if isinstance(balancer, KernelBalancer):
        balancer._called(PLANS["net"].bridge, Call(2, "tcp", caller, 40000, address, 80))
    elif isinstance(balancer, MemoryBalancer):
        balancer.call(PLANS["net"].bridge, "tcp", address, 80, caller)


async def test_a_port_is_given_once_and_the_same_again(balancer: Balancer) -> None:
    balancer.networks(PLANS)
    (chosen,) = balancer.publish("a", [LocalPort("tcp", 80, "10.0.1.2")], "web.1")
    assert balancer.publish("a", [LocalPort("tcp", 80, "10.0.1.3")], "web.1")[0].published == chosen.published
    wanted = [LocalPort("tcp", 80, "10.0.1.4", chosen.published)]
    with pytest.raises(Conflict, match=f"port {chosen.published}/tcp of this node is taken by web.1"):
        balancer.publish("b", wanted, "web.2")
    assert balancer.publish("a", ()) == ()
    assert [port.published for port in balancer.publish("b", wanted, "web.2")] == [chosen.published]


async def test_a_port_of_another_program_is_refused() -> None:
    with socket.socket(socket.AF_INET6) as other:
        other.bind(("::", 0))
        port = other.getsockname()[1]
        tables = Tables(taken={("tcp", "", port): None})
        kernel = KernelBalancer(cast(Nft, Rules()), "n1", NoConnections(), RealClock(), lambda *_: None)
        for balancer in (MemoryBalancer("n1", RealClock(), tables), kernel):
            with pytest.raises(Conflict, match="is taken by another program on this node"):
                balancer.publish("a", [LocalPort("tcp", 80, "10.0.1.2", port)], "web.1")
            await balancer.close()


async def test_in_memory_what_the_node_believes_follows_the_news_and_outlives_the_agent() -> None:
    tables = Tables()
    first = MemoryBalancer("n1", RealClock(), tables)
    first.networks(PLANS)
    first.take(web("10.0.2.2", "10.0.2.3", number=1))
    published = ServiceNames(
        "id-api", "api", endpoints=(EndpointName("api.1", "10.0.2.9", "n2", network="net"),), ports=(Port(80, 8080),)
    )
    first.take(EndpointsMessage("ingress", True, (published,), number=2))
    assert tables.believes("net", "10.0.2.2") == ()
    await first.applied(1)
    assert [tables.believes("net", f"10.0.2.{last}") for last in (2, 3, 4, 9)] == [("id-web",), ("id-web",), (), ("id-api",)]
    second = MemoryBalancer("n1", RealClock(), tables)
    second.networks(PLANS)
    second.take(EndpointsMessage("ingress", True, number=1))
    await second.applied(0)
    assert [tables.believes("net", f"10.0.2.{last}") for last in (2, 9)] == [("id-web",), ()], "net has not been told yet"
    second.take(EndpointsMessage("net", True, web("10.0.2.3", service="new").services, number=2))
    await second.applied(1)
    assert [*tables.sends.values()] == [(Sending("net", "10.0.2.3", "id-new"),)], "the same address, of another service"


async def test_in_memory_a_refused_change_is_tried_again() -> None:
    asked, again = list[bool](), asyncio.Event()

    def takes() -> float:
        asked.append(True)
        if len(asked) == 2:
            again.set()
        return 0.0

    balancer = MemoryBalancer("n1", RealClock(), Tables(refuses=True), takes=takes)
    balancer.networks(PLANS)
    balancer.take(web("10.0.2.2", number=1))
    waiting = asyncio.ensure_future(balancer.applied(0))
    async with asyncio.timeout(WAIT_S):
        await again.wait()
        assert not waiting.done()
        assert balancer.tables.believes("net", "10.0.2.2") == ()
        balancer.tables.refuses = False
        assert await waiting == 1
    assert balancer.tables.believes("net", "10.0.2.2") == ("id-web",)
    await balancer.close()
