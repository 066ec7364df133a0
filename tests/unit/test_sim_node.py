"""A simulated node: the real agent on a machine that can be killed, paused and switched off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from controller.dispatch.stream import NodeStream
from model import codec
from model.spec import Attachment, ContainerSpec, Healthcheck, Mount, Port, Resources, RestartPolicy, ServiceSpec
from protos import node_pb2 as pb
from sim.chance import Chance
from sim.clock import SimClock
from sim.loop import VirtualLoop
from sim.machine import Box, Machine
from sim.node import SimNode
from sim.process import Process
from sim.trace import Trace
from sim.wire import Wire

WEB = ServiceSpec(
    "shop_web",
    ContainerSpec("web:1", networks=(Attachment("shop_default"),), restart=RestartPolicy(delay_s=1.0)),
    reservations=Resources(cpus=0.5, memory_bytes=1 << 20),
)
NETWORK = {"name": "shop_default", "vni": 7, "subnet": "10.0.0.0/16", "slice": "10.0.1.0/24"}


@dataclass
class Desk:
    """A controller with one answer: `wanted`, sent again with each session and whenever it changes."""

    wanted: pb.Desired = field(default_factory=pb.Desired)
    removed: bool = False
    statuses: list[pb.Status] = field(default_factory=list)
    acks: list[int] = field(default_factory=list)
    streams: list[NodeStream] = field(default_factory=list)

    async def serve(self, stream: NodeStream) -> None:
        first = await stream.read()
        if first is None:
            return
        if self.removed:
            await stream.write(pb.ToNode(goodbye=pb.Goodbye(removed=True, reason="by an operator")))
            return
        await stream.write(pb.ToNode(welcome=pb.Welcome(epoch=1, heartbeat_s=5.0, controllers=["c1:7443", "c2:7443"])))
        self.streams.append(stream)
        await stream.write(pb.ToNode(desired=self.wanted))
        await stream.write(pb.ToNode(floor=pb.Floor(number=1)))
        while (message := await stream.read()) is not None:
            kind = message.WhichOneof("kind")
            if kind == "heartbeat":
                await stream.write(pb.ToNode(heartbeat=message.heartbeat))
            elif kind == "status":
                self.statuses.append(message.status)
            elif kind == "ack":
                self.acks.append(message.ack.generation)

    def want(self, slots: int, spec: ServiceSpec = WEB, *, version: int = 1, created_ms: int = 7) -> None:
        """That many replicas on the node."""
        self.wanted = pb.Desired(generation=self.wanted.generation + 1, whole=True)
        service = self.wanted.services.add(service_id="s1", name=spec.name)
        service.specs.add(version=version, json=codec.encode(spec))
        for slot in range(1, slots + 1):
            service.slots.add(slot=slot, version=version, created_ms=created_ms)
        self.wanted.networks.add(**NETWORK)


class Told:
    """What the machine told."""

    def __init__(self) -> None:
        self.starts: list[Box] = []
        self.ends: list[tuple[int, int | None, str]] = []

    def container_started(self, node: str, box: Box) -> None:
        self.starts.append(box)

    def container_rewired(self, node: str, box: Box) -> None:
        """Nobody looks here."""

    def container_ended(self, node: str, box: Box, code: int | None, why: str) -> None:
        self.ends.append((box.slot, code, why))


class World:
    def __init__(self, seed: int = 1) -> None:
        self.loop = VirtualLoop()
        self.chance = Chance(seed)
        self.trace = Trace(self.loop)
        self.wire = Wire(self.loop, self.chance, self.trace)
        self.desk, self.told, self.crashes = Desk(), Told(), list[str]()
        self.clock = SimClock(self.loop)
        self.machine = Machine("n1", self.loop, self.clock, self.chance, self.trace, self.told, 4.0, 8 << 30, "10.255.0.1:7443")
        self.node = SimNode(
            "n1", self.machine, self.loop, self.wire, self.clock, self.chance, self.trace, ("c1:7443",), "01", "id-n1"
        )
        self.node.crashed = lambda name, error: self.crashes.append(f"{name}: {error!r}")
        self.wire.listen("c1:7443", "c1", Process(self.loop, "c1"), self.desk.serve)

    def run(self, body: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        self.loop.run_until_complete(body(self))
        assert self.crashes == []

    async def tell(self) -> None:
        """The newest wish, in the session that is open."""
        await self.desk.streams[-1].write(pb.ToNode(desired=self.desk.wanted))

    async def until(self, condition: Callable[[], bool], within_s: float = 60.0) -> None:
        end = self.loop.time() + within_s
        while not condition():
            assert self.loop.time() < end, self.trace.recent()[-10:]
            await asyncio.sleep(0.1)

    def health(self) -> dict[int, str]:
        """As it was reported last, by slot."""
        return {row.key.slot: row.health for status in self.desk.statuses for row in status.replicas}

    def running(self) -> list[int]:
        """Slots."""
        return sorted(box.slot for box in self.machine.containers() if box.running)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.loop.close()


def test_what_is_wanted_runs_and_is_shown(world: World) -> None:
    async def body(world: World) -> None:
        ports = (Port(80, 8080, mode="host"),)
        world.desk.want(1, replace(WEB, container=replace(WEB.container, ports=ports)))
        world.node.start()
        await world.until(lambda: world.running() == [1])
        (box,) = world.machine.containers()
        assert (box.service_id, box.slot, box.created_ms, box.version, box.cpus) == ("s1", 1, 7, 1, 0.5)
        assert (box.addresses, box.ports) == ((("shop_default", "10.0.1.2"),), (("80/tcp", "0.0.0.0:8080"),))
        assert [replace(box, id=box.id) for box in world.told.starts] == [box]
        await world.until(lambda: any(row.state == "running" for status in world.desk.statuses for row in status.replicas))
        world.desk.want(0)
        await world.tell()
        await world.until(lambda: world.machine.containers() == [])
        assert world.told.ends == [(1, 143, "stopped")]

    world.run(body)


def test_a_killed_agent_leaves_containers_and_the_next_one_takes_them_over(world: World) -> None:
    async def body(world: World) -> None:
        world.desk.want(2)
        world.node.start()
        await world.until(lambda: world.running() == [1, 2])
        world.node.kill()
        assert not world.node.alive
        world.machine.crash_some(1)
        assert len(world.running()) == 1
        await asyncio.sleep(30)
        assert len(world.running()) == 1, "nobody starts it again"
        starts = len(world.told.starts)
        world.node.start()
        await world.until(lambda: world.running() == [1, 2])
        assert len(world.told.starts) == starts + 1
        assert [why for _, _, why in world.told.ends] == ["crashed"]

    world.run(body)


@pytest.mark.parametrize("seed", range(40))
def test_an_agent_killed_at_any_moment_of_a_start_or_a_stop_leaves_nothing_double(seed: int) -> None:
    world = World(seed)

    async def body(world: World) -> None:
        rng = world.chance.stream("test")
        world.desk.want(3)
        for slots in (3, 1, 3):
            world.desk.want(slots)
            world.node.start()
            await asyncio.sleep(rng.uniform(0.0, 2.5))
            world.node.kill()
        world.node.start()
        await world.until(lambda: world.running() == [1, 2, 3])
        await asyncio.sleep(30)
        addresses = [address for box in world.machine.containers() for address in box.addresses]
        assert (len(world.machine.containers()), len(dict.fromkeys(addresses))) == (3, 3)
        world.desk.want(0)
        await world.tell()
        await world.until(lambda: world.machine.containers() == [])
        await world.until(lambda: world.machine.journal.load() == [])
        assert world.machine.network.attached == {}

    world.run(body)
    world.loop.close()


def test_a_paused_agent_does_nothing_and_goes_on(world: World) -> None:
    async def body(world: World) -> None:
        world.desk.want(1)
        world.node.start()
        await world.until(lambda: world.running() == [1])
        world.node.pause()
        world.machine.crash_some(1)
        await asyncio.sleep(60)
        assert world.running() == []
        world.node.resume()
        await world.until(lambda: world.running() == [1])

    world.run(body)


def test_after_a_power_cut_the_journal_and_volumes_are_there_and_nothing_else(world: World) -> None:
    async def body(world: World) -> None:
        spec = replace(WEB, container=replace(WEB.container, mounts=(Mount("volume", "/data", "shop_data"),)))
        world.desk.want(1, spec)
        world.node.start()
        await world.until(lambda: world.running() == [1])
        world.node.power_off()
        assert (world.machine.containers(), world.told.ends) == ([], [(1, None, "power")])
        assert (world.machine.network.attached, len(world.machine.journal.load())) == ({}, 1)
        await asyncio.sleep(5)
        world.node.power_on()
        await world.until(lambda: world.running() == [1])
        assert [volume.name for volume in world.machine.volumes.all()] == ["shop_data"]
        assert world.machine.info().boot_id == "boot-2"

    world.run(body)


def test_a_full_disk_and_a_missing_image_delay_a_start_and_end_none(world: World) -> None:
    async def body(world: World) -> None:
        world.desk.want(1)
        world.node.start()
        await world.until(lambda: world.running() == [1])
        world.machine.disk_full = True
        world.desk.want(2)
        await world.tell()
        await asyncio.sleep(20)
        assert world.running() == [1]
        world.machine.disk_full = False
        await world.until(lambda: world.running() == [1, 2])
        world.machine.images_missing = True
        world.desk.want(2, replace(WEB, container=replace(WEB.container, image="web:2")), version=2)
        await world.tell()
        await asyncio.sleep(20)
        assert world.running() == []
        world.machine.images_missing = False
        await world.until(lambda: world.running() == [1, 2], 120)
        assert [why for _, _, why in world.told.ends] == ["stopped", "stopped"]

    world.run(body)


def test_what_was_desired_while_the_disk_was_full_is_known_to_the_next_agent(world: World) -> None:
    """It would stop what it does not know of."""

    async def body(world: World) -> None:
        world.desk.want(1)
        world.node.start()
        await world.until(lambda: world.running() == [1])
        world.machine.disk_full = True
        world.desk.want(2)
        await world.tell()
        await asyncio.sleep(3)
        world.machine.disk_full = False
        await world.until(lambda: world.running() == [1, 2])
        world.node.kill()
        world.wire.cut("n1", "*")
        world.node.start()
        await asyncio.sleep(20)
        assert world.told.ends == []
        assert world.running() == [1, 2]

    world.run(body)


def test_a_container_that_hangs_is_killed_when_its_time_is_over(world: World) -> None:
    async def body(world: World) -> None:
        check = Healthcheck(("CMD", "probe"), interval_s=1.0, timeout_s=1.0, retries=2)
        world.desk.want(2, replace(WEB, container=replace(WEB.container, healthcheck=check, stop_grace_period_s=4.0)))
        world.node.start()
        await world.until(lambda: world.running() == [1, 2])
        first, second = world.machine.containers()
        await world.until(lambda: world.health() == {1: "healthy", 2: "healthy"})
        world.machine.unhealthy.add(first.id)
        world.machine.hang.add(second.id)
        await world.until(lambda: world.health() == {1: "unhealthy", 2: "unhealthy"})
        world.desk.want(0)
        await world.tell()
        asked_s = world.loop.time()
        await world.until(lambda: world.machine.containers() == [])
        assert world.told.ends == [(1, 143, "stopped"), (2, 137, "stopped")]
        assert world.loop.time() - asked_s > 4.0

    world.run(body)


def test_a_job_ends_by_itself(world: World) -> None:
    async def body(world: World) -> None:
        never = RestartPolicy(condition="none")
        world.desk.want(1, ServiceSpec("shop_job", ContainerSpec("job:1", command=("job", "20"), restart=never)))
        world.node.start()
        await world.until(lambda: bool(world.told.ends))
        assert world.told.ends == [(1, 0, "crashed")]
        assert 20 < world.loop.time() < 23

    world.run(body)


def test_a_removed_node_leaves_and_may_join_again(world: World) -> None:
    async def body(world: World) -> None:
        world.desk.want(2)
        world.node.start()
        await world.until(lambda: world.running() == [1, 2])
        world.desk.removed = True
        world.wire.reset("n1")
        await world.until(lambda: world.node.removed)
        assert (world.machine.containers(), world.machine.network.attached, world.machine.journal.load()) == ([], {}, [])
        assert not world.node.alive
        world.node.start()
        assert not world.node.alive, "it is in no cluster"
        world.desk.removed = False
        world.node.rejoin("02", "id-again")
        await world.until(lambda: world.running() == [1, 2])

    world.run(body)


def test_a_node_whose_owner_acts_instead_of_the_agent(world: World) -> None:
    async def body(world: World) -> None:
        world.desk.want(2)
        world.node.start()
        await world.until(lambda: world.running() == [1, 2])
        world.desk.want(1, version=2)
        world.node.rejoin("02", "id-again")
        await world.until(lambda: [(box.slot, box.version) for box in world.machine.containers()] == [(1, 2)])
        world.node.retire()
        world.node.start()
        assert (world.node.alive, world.node.removed, world.machine.containers()) == (False, True, [])
        assert world.machine.journal.load() == []

    world.run(body)


def test_an_address_is_given_again_only_when_every_node_has_forgotten_it(world: World) -> None:
    async def body(world: World) -> None:
        world.desk.want(1)
        world.node.start()
        await world.until(lambda: world.running() == [1])
        stream = world.desk.streams[-1]
        endpoints = pb.Endpoints(network="shop_default", whole=True, number=4)
        endpoints.services.add(service_id="s1", name="shop_web").endpoints.add(
            replica="shop_web.1", address="10.0.1.2", node="n1"
        )
        await stream.write(pb.ToNode(endpoints=endpoints))
        await asyncio.sleep(1)
        assert world.machine.balance is not None
        assert not world.machine.balance.forgotten("shop_default", "10.0.1.2")
        world.desk.want(0)
        await world.tell()
        await asyncio.sleep(0.2)
        assert world.running() == [1], "it drains first"
        await stream.write(pb.ToNode(endpoints=pb.Endpoints(network="shop_default", whole=True, number=5)))
        await stream.write(pb.ToNode(floor=pb.Floor(number=5)))
        await world.until(lambda: world.machine.containers() == [])
        assert world.machine.balance.forgotten("shop_default", "10.0.1.2")

    world.run(body)


def test_the_same_seed_gives_the_same_trace() -> None:
    def trace(seed: int) -> str:
        world = World(seed)

        async def body(world: World) -> None:
            world.desk.want(5)
            world.node.start()
            await asyncio.sleep(5)
            world.machine.crash_some(2)
            world.node.power_off()
            world.node.power_on()
            await world.until(lambda: world.running() == [1, 2, 3, 4, 5])

        world.run(body)
        world.loop.close()
        return world.trace.sha256()

    assert trace(3) == trace(3)
    assert trace(3) != trace(4)
