"""What a node measures and sends: over a real session, and step by step from readings that a test makes up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from math import isnan
from pathlib import Path

import pytest

from agent.core import wire
from agent.core.sampling import Sampler
from agent.core.session import SessionClient
from agent.network.balance_port import NoBalancer, Traffic
from agent.plan.desired import merge
from agent.plan.samples import Link, MachineCounters, sandbox_link
from agent.runtime.machine import MemoryMachine
from protos import node_pb2 as pb
from tests.contract.agent_support import WAIT_S, Agent, Dispatcher, DispatchSession, Keys, desired, web

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys.make()


@asynccontextmanager
async def running(client: SessionClient) -> AsyncIterator[None]:
    task = asyncio.ensure_future(client.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def session_of(agent: Agent, keys: Keys, sample_s: float) -> AsyncIterator[DispatchSession]:
    dispatcher = Dispatcher(keys, sample_s=sample_s)
    async with agent.on(), dispatcher.on(), running(agent.client(keys, dispatcher.address)):
        session = await dispatcher.session()
        await session.send(desired(1, 2, web()))
        await session.until_states({1: "running", 2: "running"})
        yield session


async def test_a_node_sends_samples_as_often_as_it_is_told(tmp_path: Path, keys: Keys) -> None:
    async with session_of(Agent(tmp_path), keys, 0.1) as session:
        found: list[pb.Samples] = []
        while len(found) < 3:
            samples = await session.next("samples")
            found += [samples] if len(samples.replicas) == 2 else []
        for samples in found:
            assert sorted(row.key.slot for row in samples.replicas) == [1, 2]
            assert [row.cpu_cores for row in samples.replicas] == [pytest.approx(0.5, rel=0.2)] * 2
            assert {(row.memory_bytes, row.pids) for row in samples.replicas} == {(1000, 3)}
        assert found[1].at_ms - found[1].interval_ms >= found[0].at_ms - 20, "one may be lost on a busy machine, none overlap"


async def test_a_node_that_is_told_never_sends_none(tmp_path: Path, keys: Keys) -> None:
    async with session_of(Agent(tmp_path), keys, 0.0) as session:
        for _ in range(3):  # heartbeats go on
            await session.send(desired(1, 2, web()))
            assert (await session.next("ack")).generation == 1
        kinds = {session.messages.get_nowait().WhichOneof("kind") for _ in range(session.messages.qsize())}
        assert "samples" not in kinds


class Hand:
    """A clock that a test puts forward; whoever sleeps is woken when its time has come."""

    def __init__(self) -> None:
        self.unix_s, self.passed_s = 1_700_000_000.0, 50.0
        self._moved = asyncio.Event()

    def now(self) -> float:
        return self.unix_s

    def monotonic(self) -> float:
        return self.passed_s

    async def sleep(self, seconds: float) -> None:
        until = self.passed_s + seconds
        while self.passed_s < until:
            self._moved.clear()
            await self._moved.wait()

    def forward(self, seconds: float, *, clock_s: float | None = None) -> None:
        self.passed_s += seconds
        self.unix_s += seconds if clock_s is None else clock_s
        self._moved.set()


class Counted(NoBalancer):
    def __init__(self) -> None:
        super().__init__()
        self.rows: tuple[Traffic, ...] = ()

    async def load(self) -> tuple[Traffic, ...]:
        return self.rows


class Bench:
    """A sampler of a node with one replica, and everything it reads."""

    def __init__(self, folder: Path) -> None:
        self.balance = Counted()
        self.agent = Agent(folder, balance=self.balance, machine=MemoryMachine(lambda: self.machine))
        self.clock = Hand()
        self.machine = MachineCounters(10.0, 500, 0, 0, 7, 9, {}, Link(0, 0))
        self.sampler = Sampler(self.agent.runner, self.clock)

    def link(self, received: int, sent: int) -> None:
        life = next(iter(self.agent.core.lives.values()))
        self.machine = self.machine._replace(sandboxes={sandbox_link(life.sandbox): Link(received, sent)})


@asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    made = Bench(folder)
    async with made.agent.on():
        made.agent.runner.desire(merge(made.agent.core.desired, wire.desired_message(desired(1, 1, web()).desired)))
        await made.agent.reached(lambda: made.agent.runtime.running() == 1)
        await made.agent.reached(lambda: all(life.stage == "running" for life in made.agent.core.lives.values()))
        yield made


async def test_rates_over_the_time_that_has_passed(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.balance.rows = (Traffic("s1", "web", "web.1", "10.0.0.2", connections=100, bytes_in=1000, bytes_out=5),)
        made.link(100, 50)
        async with aclosing(made.sampler.every(2.0)) as steps:
            coming = asyncio.ensure_future(anext(steps))
            await settle()
            made.link(1100, 250)
            made.machine = made.machine._replace(cpu_s=13.0, way_out=Link(200, 400))
            made.balance.rows = (
                Traffic("s1", "web", "web.1", "10.0.0.2", connections=140, bytes_in=3000, bytes_out=15, open=6),
                Traffic("s1", "web", "web.2", "10.0.0.3"),
            )
            made.clock.forward(2.0)
            async with asyncio.timeout(WAIT_S):
                samples = await coming
        assert (samples.at_ms, samples.interval_ms) == (1_700_000_002_000, 2000)
        assert (samples.node.cpu_cores, samples.node.memory_bytes, samples.node.disk_used_bytes) == (1.5, 500, 7)
        assert (samples.node.rx_bytes_per_s, samples.node.tx_bytes_per_s) == (100.0, 200.0)
        assert (samples.replicas[0].rx_bytes_per_s, samples.replicas[0].tx_bytes_per_s) == (500.0, 100.0)
        [flow] = samples.traffic
        assert (flow.replica, flow.connections_per_s, flow.in_bytes_per_s, flow.out_bytes_per_s, flow.open) == (
            "web.1", 20.0, 1000.0, 5.0, 6,
        )  # fmt: skip


async def test_counts_of_an_earlier_agent_and_counters_that_went_back_give_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as made, aclosing(made.sampler.every(1.0)) as steps:
        coming = asyncio.ensure_future(anext(steps))
        await settle()
        inherited = Traffic("s1", "web", "web.1", "10.0.0.2", connections=10**6)
        made.balance.rows = (inherited,)
        made.clock.forward(1.0)
        assert not (await coming).traffic
        coming = asyncio.ensure_future(anext(steps))
        await settle()
        made.balance.rows = (inherited._replace(connections=3),)
        made.clock.forward(1.0)
        assert isnan((await coming).traffic[0].connections_per_s)


async def test_a_clock_that_was_set_gives_no_sample(tmp_path: Path) -> None:
    async with bench(tmp_path) as made, aclosing(made.sampler.every(1.0)) as steps:
        coming = asyncio.ensure_future(anext(steps))
        await settle()
        made.clock.forward(1.0, clock_s=3600.0)
        await settle()
        assert not coming.done()
        made.clock.forward(1.0)
        async with asyncio.timeout(WAIT_S):
            assert (await coming).interval_ms == 1000


async def test_a_measurement_that_fails_ends_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as made, aclosing(made.sampler.every(1.0)) as steps:
        made.balance.rows = (object(),)  # type: ignore[assignment]
        coming = asyncio.ensure_future(anext(steps))
        await settle()
        made.balance.rows = ()
        for _ in range(2):
            made.clock.forward(1.0)
            await settle()
        async with asyncio.timeout(WAIT_S):
            assert (await coming).node.memory_bytes == 500


async def settle() -> None:
    """Whatever can go on goes on."""
    for _ in range(20):
        await asyncio.sleep(0)
