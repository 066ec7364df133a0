"""Endpoints over a real wire: what several nodes are told, what they acknowledge, and when the one that lost a replica hears
that nobody calls it any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from grpc import aio

from controller.certificates import serial_of
from controller.clock import RealClock
from controller.dispatch.grpc_server import DispatchServer
from controller.dispatch.server import Dispatch
from controller.election import Reign
from controller.loops.picture import Picture
from controller.pki import Pki, ensure_pki
from controller.wiring import listen
from model import codec
from model.documents import (
    INGRESS,
    Assigned,
    AssignedService,
    AssignmentDoc,
    ControllerDoc,
    NetworkPlanDoc,
    NodeDoc,
    NodeHealthDoc,
    NodeInfo,
    ReplicaStatus,
    ServiceDoc,
    ServicePlanDoc,
    StatusDoc,
    key,
)
from model.pki_names import CONTROLLER_SERVER_NAME, ROLE_NODE
from model.spec import Attachment, ContainerSpec, Port, ServiceSpec
from model.store_port import Guard
from protos import node_pb2 as pb
from tests.contract.controller_harness import ENDED

pytestmark = [pytest.mark.contract, pytest.mark.timeout(60)]

WEB = ServiceDoc("id1", ServiceSpec("web", ContainerSpec("busybox", networks=(Attachment("net"),))), 1)
RUNNING = ReplicaStatus("id1", 1, 1, 5, "running", addresses=(("net", "10.1.0.2/16"),))


class Agent:
    """One node's side of a session; `acks` False: an older one, or one that hangs."""

    def __init__(self, name: str, pair: Any, call: Any) -> None:
        self.name, self.pair, self.call = name, pair, call
        self.heard: list[pb.ToNode] = []
        self.acks = True
        self.news = asyncio.Condition()

    async def read(self) -> None:
        with contextlib.suppress(*ENDED):
            while isinstance(message := await self.call.read(), pb.ToNode):
                if message.WhichOneof("kind") == "endpoints" and self.acks:
                    await self.ack(message.endpoints.number)
                async with self.news:
                    self.heard.append(message)
                    self.news.notify_all()

    async def ack(self, number: int) -> None:
        await self.call.write(pb.FromNode(endpoints_ack=pb.EndpointsAck(number=number)))

    def of(self, kind: str) -> list[Any]:
        return [getattr(row, kind) for row in self.heard if row.WhichOneof("kind") == kind]

    def dropped(self) -> int:
        """The number at which it was told that nobody stands behind `web` any more."""
        rows = [row for row in self.of("endpoints") if not row.whole and row.services and not row.services[0].endpoints]
        return rows[-1].number if rows else 0

    def floor(self) -> int:
        return max((row.number for row in self.of("floor")), default=0)

    async def until(self, probe: Callable[[], Any], within_s: float = 20.0) -> Any:
        async with asyncio.timeout(within_s), self.news:
            return await self.news.wait_for(probe)


class Leader:
    """A dispatch server whose documents are put here."""

    def __init__(self, pki: Pki, late_s: float) -> None:
        self.pki, self.port, self.revision = pki, 0, 0
        self.documents: dict[str, NodeDoc] = {}
        self.picture = Picture(asyncio.get_running_loop().call_soon)
        self.dispatch = Dispatch(
            self.picture, RealClock(), 1.0, self.read, lambda node: None, lambda events: None, ["10.0.0.9:2379"], late_s
        )
        self.server = DispatchServer(self.dispatch, pki)

    async def read(self, node: str) -> NodeDoc | None:
        return self.documents.get(node)

    def put(self, kind: str, name: str, document: Any) -> None:
        self.revision += 1
        self.picture.from_own_puts([(key(kind, name), codec.encode(document))], self.revision)

    def assign(self, node: str, *replicas: Assigned) -> None:
        self.put("assignments", node, AssignmentDoc(node, 1, (AssignedService.of("id1", "web", replicas),) if replicas else ()))

    @contextlib.asynccontextmanager
    async def agent(self, name: str) -> AsyncIterator[Agent]:
        pair = self.pki.authority.issue(name, ROLE_NODE, [f"{name}.node.shoal"])
        serial = serial_of(x509.load_pem_x509_certificate(pair.certificate))
        self.documents[name] = NodeDoc(name, name, serial)
        credentials = grpc.ssl_channel_credentials(self.pki.authority.pem, pair.key, pair.certificate)
        options = (("grpc.ssl_target_name_override", CONTROLLER_SERVER_NAME),)
        async with aio.secure_channel(f"127.0.0.1:{self.port}", credentials, options=options) as channel:
            path = "/shoal.node.v1.Dispatch/Session"
            call = channel.stream_stream(path, pb.FromNode.SerializeToString, pb.ToNode.FromString)()
            await call.write(pb.FromNode(hello=pb.Hello(node=name)))
            found = Agent(name, pair, call)
            reading = asyncio.create_task(found.read())
            try:
                await found.until(lambda: found.of("endpoints"))
                yield found
            finally:
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await reading
                call.cancel()


@contextlib.asynccontextmanager
async def leader(folder: Path, late_s: float = 60.0) -> AsyncIterator[Leader]:
    """With a network that n1 and n2 take part in, and one replica of `web` on n1."""
    found = Leader(ensure_pki(folder / "pki", "c1", []), late_s)
    found.port = found.server.start(listen("--dispatch", "127.0.0.1", 0))
    slices = (("n1", "10.1.0.0/24"), ("n2", "10.1.1.0/24"))
    found.put("netplans", "net", NetworkPlanDoc("n", "net", 4097, "10.1.0.0/16", slices))
    found.put("services", "web", WEB)
    found.assign("n1", Assigned(1, 1, 5))
    found.put("status", "n1", StatusDoc("n1", NodeInfo("10.0.0.1:7445", "10.0.0.1"), replicas=(RUNNING,)))
    found.dispatch.open(Reign(Guard(key("leader"), 1), 1, "c", 1, 0, RealClock().monotonic, good_until=float("inf")))
    try:
        yield found
    finally:
        await found.server.stop()


async def settled(*agents: Agent) -> None:
    """Each was told both networks, and that everybody follows."""
    for agent in agents:
        await agent.until(lambda: {row.network for row in agent.of("endpoints")} == {"net", INGRESS})  # noqa: B023
        await agent.until(lambda: agent.floor() >= max(row.number for row in agent.of("endpoints")))  # noqa: B023


async def test_a_dropped_replicas_node_hears_it_when_the_last_one_follows(tmp_path: Path) -> None:
    async with leader(tmp_path) as lead, lead.agent("n1") as n1, lead.agent("n2") as n2:
        await settled(n1, n2)
        n2.acks = False
        lead.assign("n1")
        number = await n1.until(n1.dropped)
        assert await n2.until(n2.dropped) == number
        assert number > n1.floor()
        await n2.ack(number)
        await n1.until(lambda: n1.floor() >= number)
        assert n2.floor() < number, "it lost nothing, it waits for nothing"


async def test_several_messages_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    async with leader(tmp_path) as lead, lead.agent("n1") as n1:
        await n1.until(lambda: len(n1.of("endpoints")) == 2)
        first, second = n1.of("endpoints")
        assert first.number < second.number, "each has that of its own newest change, so the last one's ends it"
        assert second.network == "net"


@pytest.mark.parametrize("how", ["it is not ready any more", "its session ends"])
async def test_a_node_that_cannot_answer_holds_nobody_up(tmp_path: Path, how: str) -> None:
    async with leader(tmp_path) as lead, lead.agent("n1") as n1, contextlib.AsyncExitStack() as stack:
        n2 = await stack.enter_async_context(lead.agent("n2"))
        await settled(n1, n2)
        n2.acks = False
        lead.assign("n1")
        number = await n1.until(n1.dropped)
        assert n1.floor() < number
        if how == "its session ends":
            await stack.aclose()
        else:
            lead.put("health", "n2", NodeHealthDoc("n2", "unreachable"))
        await n1.until(lambda: n1.floor() >= number, within_s=4.0)


async def test_an_older_agent_that_never_acknowledges_is_waited_for_a_bounded_time(tmp_path: Path) -> None:
    async with leader(tmp_path, late_s=0.5) as lead, lead.agent("n1") as n1, lead.agent("n2") as n2:
        await settled(n1, n2)
        n2.acks = False
        lead.assign("n1")
        number = await n2.until(n2.dropped)
        await n1.until(lambda: n1.floor() >= number)


async def test_published_services_are_told_to_nodes_without_any_network(tmp_path: Path) -> None:
    async with leader(tmp_path) as lead, lead.agent("n3") as n3:
        assert [row.network for row in n3.of("endpoints")] == [INGRESS]
        lead.put("svcplans", "web", ServicePlanDoc("id1", "web", (("net", "10.1.192.1"),), (Port(80, 8080),)))
        await n3.until(lambda: n3.of("endpoints")[-1].services)
        (row,) = n3.of("endpoints")[-1].services
        assert (row.ports[0].published, row.endpoints[0].underlay, row.endpoints[0].network) == (8080, "10.0.0.1", "net")
        assert len(n3.of("desired")) == 1, "what it must run is not looked at for that"


async def test_the_clusters_own_addresses_come_whole_and_then_as_differences(tmp_path: Path) -> None:
    async with leader(tmp_path) as lead, lead.agent("n2") as n2:
        assert [row.WhichOneof("kind") for row in n2.heard[:3]] == ["welcome", "guarded", "desired"]
        (whole,) = n2.of("guarded")
        assert (whole.whole, list(whole.added)) == (True, ["10.0.0.1:7445", "10.0.0.9:2379"])
        lead.put("controllers", "c2", ControllerDoc("c2", "c2", "https://10.0.0.8:7443", "10.0.0.8:7444"))
        lead.put("status", "n1", StatusDoc("n1", NodeInfo("10.0.0.7:7445", "10.0.0.1")))
        await n2.until(lambda: len(n2.of("guarded")) == 2)
        news = n2.of("guarded")[1]
        assert list(news.added) == ["10.0.0.7:7445", "10.0.0.8:7443", "10.0.0.8:7444"]
        assert (news.whole, list(news.removed)) == (False, ["10.0.0.1:7445"])


async def test_a_published_replica_is_forgotten_when_nodes_without_its_network_follow_too(tmp_path: Path) -> None:
    async with leader(tmp_path) as lead, lead.agent("n1") as n1, lead.agent("n3") as n3:
        lead.put("svcplans", "web", ServicePlanDoc("id1", "web", (("net", "10.1.192.1"),), (Port(80, 8080),)))
        await n3.until(lambda: n3.of("endpoints")[-1].services)
        n3.acks = False
        lead.assign("n1")
        number = await n3.until(n3.dropped)
        await n1.until(lambda: n1.of("endpoints")[-1].number >= number)
        needed = max(row.number for row in n1.of("endpoints"))
        assert n1.floor() < number
        await n3.ack(number)
        await n1.until(lambda: n1.floor() >= needed)
