"""sim/calls.py: controllers' calls to agents are answered by the agent's own service, or by nobody."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent.plan.records import WantedVolume
from controller.api import volumes
from controller.decide.types import Settings
from controller.store.memory import MemoryStore
from model import codec
from model.documents import NodeDoc, StatusDoc, key
from model.errors import NotFound, Unavailable
from model.store_port import Put
from protos import node_pb2 as pb
from sim.calls import AgentCalls
from sim.chance import Chance
from sim.clock import SimClock
from sim.controller import SimController
from sim.deeds import call
from sim.loop import VirtualLoop
from sim.machine import Machine
from sim.node import SimNode
from sim.trace import Trace
from sim.wire import Wire


class Deaf:
    def container_started(self, *facts: Any) -> None: ...

    def container_rewired(self, *facts: Any) -> None: ...

    def container_ended(self, *facts: Any) -> None: ...


class Scene:
    def __init__(self, loop: VirtualLoop) -> None:
        chance, trace = Chance(1), Trace(loop)
        self.loop, self.open = loop, True
        self.store = MemoryStore(now=loop.time)
        wire, clock = Wire(loop, chance, trace), SimClock(loop)
        self.one = SimController("c1", self.store, loop, wire, chance, trace, Settings(), 10.0)
        machine = Machine("n1", loop, clock, chance, trace, Deaf(), 4.0, 8 << 30, "10.250.0.1")
        self.node = SimNode("n1", machine, loop, wire, clock, chance, trace, [self.one.address], "01", "id")
        self.calls = AgentCalls({"n1": self.node}, lambda source, target: self.open, random.Random(1))
        self.one.ask_agent = self.calls

    async def ready(self) -> None:
        await self.store.txn([], [Put(key("nodes", "n1"), codec.encode(NodeDoc("n1", "id", "01")))])
        self.one.start()
        self.node.start()
        await asyncio.sleep(20.0)
        assert await self.store.get(key("health", "n1")) is not None

    async def volumes(self) -> tuple[str, ...]:
        """What the node's status says it has."""
        entry = await self.store.get(key("status", "n1"))
        return codec.decode(StatusDoc, entry.value).volumes if entry else ()


def play(story: Callable[[Scene], Awaitable[None]]) -> None:
    loop = VirtualLoop()

    async def main() -> None:
        scene = Scene(loop)
        await scene.ready()
        await story(scene)

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_a_volume_is_removed_where_it_is() -> None:
    async def story(scene: Scene) -> None:
        scene.node.machine.volumes.ensure(WantedVolume("data"))
        assert scene.node.runner is not None
        scene.node.runner.report_volumes()
        await asyncio.sleep(20.0)
        assert await scene.volumes() == ("data",)
        await scene.one.ask(call(volumes.remove_volume, None, {"force": False}, name="data"))
        assert scene.node.machine.volumes.all() == []
        await asyncio.sleep(20.0)
        assert await scene.volumes() == ()

    play(story)


def test_who_cannot_answer_is_not_waited_for_longer_than_the_call_allows() -> None:
    async def story(scene: Scene) -> None:
        api = scene.one.api
        assert api is not None
        request = pb.VolumeRequest(name="none")
        with pytest.raises(NotFound):
            await api.agents.call("n1", "RemoveVolume", request)
        scene.open = False
        began = scene.loop.time()
        with pytest.raises(Unavailable, match="no answer within 7 s"):
            await api.agents.call("n1", "RemoveVolume", request, 7.0)
        assert scene.loop.time() == pytest.approx(began + 7.0)
        scene.open = True
        scene.node.pause()
        with pytest.raises(Unavailable, match="no answer"):
            await api.agents.call("n1", "RemoveVolume", request, 7.0)
        scene.node.kill()
        with pytest.raises(Unavailable, match="refused"):
            await api.agents.call("n1", "RemoveVolume", request, 7.0)

    play(story)
