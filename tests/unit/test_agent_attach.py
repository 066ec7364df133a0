"""Interfaces, names and published ports of a replica go together. Networks in memory."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.core.attach import Attacher
from agent.core.ports import NoNames, Ports
from agent.network.balance_port import LocalPort, NoBalancer
from agent.network.memory import MemoryNetwork
from agent.network.port import Attached, AttachmentWanted
from agent.plan.names import Client
from agent.plan.network import NetworkWanted
from agent.plan.records import Desired, Life, ReplicaId
from model.errors import Conflict, RuntimeFailed
from model.spec import Attachment, ContainerSpec, Port, ServiceSpec

SHOP = NetworkWanted("shop", 7, "10.0.0.0/16", "10.0.1.0/24")
BACK = NetworkWanted("back", 8, "10.1.0.0/16", "10.1.1.0/24", internal=True)
SPEC = ContainerSpec("web:1", networks=(Attachment("shop"),), ports=(Port(80, 0, mode="host"),))


class Names(NoNames):
    def __init__(self) -> None:
        self.clients: dict[str, Client] = {}

    def client(self, sandbox: str, client: Client | None) -> None:
        self.clients.pop(sandbox, None)
        if client is not None:
            self.clients[sandbox] = client


class Balancer(NoBalancer):
    """Chooses numbers from 32768 on; `taken` belong to somebody else."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: set[int] = set()
        self.published: dict[str, tuple[LocalPort, ...]] = {}

    def publish(self, sandbox: str, ports: Collection[LocalPort], name: str = "") -> tuple[LocalPort, ...]:
        rows = []
        for port in ports:
            number = port.published or next(n for n in range(32768, 40000) if n not in self.taken)
            if number in self.taken:
                raise Conflict(f"port {number}/tcp is taken by nginx")
            rows.append(replace(port, published=number))
        self.published.pop(sandbox, None)
        if rows:
            self.published[sandbox] = tuple(rows)
        return tuple(rows)


class Room:
    def __init__(self) -> None:
        self.names, self.balance, self.network = Names(), Balancer(), MemoryNetwork()
        nothing: Any = None
        ports = Ports(nothing, nothing, self.network, nothing, Path("/nowhere"), self.names, self.balance)
        self.attacher = Attacher(ports, lambda: Desired(networks=(SHOP, BACK)))

    async def attached(self, spec: ContainerSpec = SPEC) -> Life:
        await self.network.apply((SHOP, BACK))
        return await self.attacher.attach(Life(ReplicaId("s1", 1, 7, 1), ServiceSpec("web", spec), "web.1"))


async def test_names_and_ports_come_and_go_with_the_interfaces() -> None:
    room = Room()
    life = await room.attached()
    assert (life.addresses, life.ports) == ((("shop", "10.0.1.2/16"),), (("80/tcp", "0.0.0.0:32768"),))
    assert room.names.clients == {life.sandbox: Client("web.1", (("shop", "10.0.1.2"),))}
    assert room.balance.published[life.sandbox][0].address == "10.0.1.2"
    await room.attacher.detach(life.sandbox)
    assert (room.names.clients, room.balance.published, room.network.attached) == ({}, {}, {})
    again = await room.attacher.attach(life)
    assert again.ports == life.ports


async def test_a_chosen_number_that_somebody_took_is_replaced_by_another() -> None:
    room = Room()
    life = await room.attached()
    await room.attacher.detach(life.sandbox)
    room.balance.taken = {32768}
    assert (await room.attacher.attach(life)).ports == (("80/tcp", "0.0.0.0:32769"),)


async def test_published_ports_lead_to_a_network_with_a_way_out() -> None:
    room = Room()
    life = await room.attached(replace(SPEC, networks=(Attachment("back"), Attachment("shop"))))
    assert room.balance.published[life.sandbox][0].address == "10.0.1.2"


async def test_a_published_port_that_is_taken_is_a_conflict_that_names_its_owner() -> None:
    room = Room()
    room.balance.taken = {8080}
    with pytest.raises(Conflict, match="port 8080/tcp is taken by nginx"):
        await room.attached(replace(SPEC, ports=(Port(80, 8080, mode="host"),)))


async def test_rewiring_is_told_to_names_and_ports() -> None:
    room = Room()
    life = replace(await room.attached(), networks=(Attachment("back"),))
    life, failure = await room.attacher.rewire(life)
    assert (life.addresses, failure) == ((("back", "10.1.1.2/16"),), None)
    assert room.names.clients[life.sandbox].addresses == (("back", "10.1.1.2"),)
    assert [(row.address, row.published) for row in room.balance.published[life.sandbox]] == [("10.1.1.2", 32768)]
    life, failure = await room.attacher.rewire(replace(life, networks=()))
    assert (life.addresses, failure, room.balance.published) == ((), None, {})


class Deaf(MemoryNetwork):
    """Refuses some networks, and gives nothing for others."""

    async def connect(self, container_id: str, wanted: AttachmentWanted) -> Attached:
        if wanted.network == "nowhere":
            return self.attached[container_id]
        if wanted.network == "full":
            raise RuntimeFailed("network full: no address is left")
        return await super().connect(container_id, wanted)


async def test_rewiring_goes_as_far_as_it_can_and_says_what_is_missing() -> None:
    async def go(*wanted: str) -> tuple[list[str], str]:
        room = Room()
        room.network = Deaf()
        room.attacher = Attacher(replace(room.attacher._ports, network=room.network), Desired)
        life = replace(await room.attached(), networks=tuple(Attachment(name) for name in wanted))
        life, failure = await room.attacher.rewire(life)
        return [name for name, _ in life.addresses], failure.message if failure else ""

    assert await go("back", "full") == (["back"], "network full: no address is left")
    assert await go("shop", "nowhere") == (["shop"], "network nowhere: not attached yet")


async def test_an_interface_nobody_remembers_is_found_and_removed() -> None:
    """The agent was killed between the driver's work and its own record of it."""
    room = Room()
    life = await room.attached()
    await room.network.connect(life.sandbox, AttachmentWanted("back"))
    life, failure = await room.attacher.rewire(life)
    assert ([name for name, _ in life.addresses], failure) == (["shop"], None)
    assert room.network.attached[life.sandbox].addresses == life.addresses


async def test_a_restarted_agent_tells_names_and_ports_again() -> None:
    room = Room()
    life = await room.attached()
    later = Room()
    later.attacher.recover(life)
    assert later.names.clients.keys() == later.balance.published.keys() == {life.sandbox}
    assert later.balance.published[life.sandbox][0].published == 32768
