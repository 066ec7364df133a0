"""When an agent takes its controller for dead: after its silence, not after a sleep of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from agent.core.report import Reporter
from agent.core.session import SECOND_LOOK_S, NodeIdentity, SessionClient
from agent.core.stream import ControllerStream
from agent.network.balance_memory import MemoryBalancer
from agent.network.memory import MemoryNetwork
from agent.plan.records import Desired
from model.documents import NodeInfo
from protos import node_pb2 as pb
from sim.chance import Chance
from sim.clock import SimClock, SimRandom
from sim.loop import VirtualLoop
from sim.process import Process

HEARTBEAT_S = 1.0
WORD = pb.ToNode(heartbeat=pb.Heartbeat())


class Leader:
    """A controller that answers every session; `words` are what comes after the welcome."""

    def __init__(self) -> None:
        self.sessions = 0
        self.words: asyncio.Queue[pb.ToNode] = asyncio.Queue()

    @asynccontextmanager
    async def dial(self, address: str) -> AsyncIterator[ControllerStream]:
        self.sessions += 1
        self.words = asyncio.Queue()
        self.words.put_nowait(pb.ToNode(welcome=pb.Welcome(epoch=1, heartbeat_s=HEARTBEAT_S)))
        yield self

    async def write(self, message: pb.FromNode) -> None:
        return

    async def read(self) -> pb.ToNode | None:
        return await self.words.get()


def sessions(words_at: tuple[float, ...], paused: tuple[float, float], until_s: float) -> int:
    """How many an agent opened whose controller spoke at `words_at`, and which was stopped for a while."""
    loop, leader = VirtualLoop(), Leader()
    clock = SimClock(loop)
    process = Process(loop, "m1")
    runner: Any = SimpleNamespace(
        ports=SimpleNamespace(network=MemoryNetwork(), balance=MemoryBalancer("m1", clock)),
        core=SimpleNamespace(statuses=list),
        prune_specs=Desired,
    )
    random = SimRandom(Chance(1).stream("agent"))
    client = SessionClient(NodeIdentity("m1", "id", ("c1",)), leader.dial, runner, Reporter(), NodeInfo, clock, random)
    process.spawn(client.run())
    for at_s in words_at:
        loop.call_later(at_s, lambda: leader.words.put_nowait(WORD))
    loop.call_later(paused[0], process.pause)
    loop.call_later(paused[1], process.resume)
    loop.call_later(until_s, loop.stop)
    loop.run_forever()
    loop.close()
    return leader.sessions


@pytest.mark.parametrize("resumed_s", [3.5, 4.0, 6.5])
@pytest.mark.parametrize("read_after_s", [0.0, SECOND_LOOK_S / 2])
def test_who_was_stopped_reads_first_what_came_meanwhile(resumed_s: float, read_after_s: float) -> None:
    """The thread that reads from the socket was stopped too, and may be let run after the one that has the timer."""
    assert sessions((0.5, resumed_s + read_after_s), (0.75, resumed_s), resumed_s + 2) == 1


def test_a_silent_controller_is_left_after_three_heartbeats() -> None:
    ended_s = 3 * HEARTBEAT_S + SECOND_LOOK_S
    assert sessions((), (100, 100), ended_s - 0.01) == 1
    assert sessions((), (100, 100), ended_s + 1) == 2


def test_one_that_was_silent_all_the_while_is_left_after_a_sleep_too() -> None:
    assert sessions((0.5,), (0.75, 6.5), 6.5 + SECOND_LOOK_S + 1) == 2
