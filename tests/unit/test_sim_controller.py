"""sim/controller.py: the real election between simulated controllers, and requests to processes that stop and die."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import pytest

from controller.api import cluster, services, stacks, volumes
from controller.api.context import Api
from controller.api.schemas import JoinBody, ScaleBody
from controller.decide.types import Settings
from controller.store.memory import MemoryStore
from model import codec
from model.documents import LeaderDoc, NodeDoc, NodeHealthDoc, NodeInfo, ServiceDoc, StatusDoc, key
from model.errors import Conflict, NotFound, Unavailable
from model.store_port import Put
from sim import wishes
from sim.chance import Chance
from sim.controller import Gone, SimController
from sim.deeds import call
from sim.loop import VirtualLoop
from sim.trace import Trace
from sim.wire import Wire

T = TypeVar("T")


class Scene:
    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.trace = Trace(loop)
        self.store = MemoryStore(now=loop.time)
        self.crashes: list[tuple[str, BaseException]] = []
        chance, settings = Chance(1), Settings()
        wire = Wire(loop, chance, self.trace)
        self.all = [SimController(f"c{n}", self.store, loop, wire, chance, self.trace, settings, 10.0) for n in (1, 2, 3)]
        for one in self.all:
            one.crashed = lambda name, error: self.crashes.append((name, error))

    def leaders(self) -> list[SimController]:
        return [one for one in self.all if one.leads()]

    async def leader(self, other_than: SimController | None = None) -> SimController:
        """The one whose key is in the store."""
        async with asyncio.timeout(60.0):
            while True:
                entry = await self.store.get(key("leader"))
                name = codec.decode(LeaderDoc, entry.value).controller if entry else ""
                for one in self.leaders():
                    if one.name == name and one is not other_than:
                        return one
                await asyncio.sleep(0.01)


def play(story: Callable[[Scene], Awaitable[T]]) -> tuple[T, str]:
    loop = VirtualLoop()

    async def main() -> tuple[T, str]:
        scene = Scene(loop)
        for one in scene.all:
            one.start()
        result = await story(scene)
        return result, scene.trace.sha256()

    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def test_one_leads_and_another_follows_when_it_is_killed() -> None:
    async def story(scene: Scene) -> None:
        first = await scene.leader()
        await asyncio.sleep(3.0)
        assert scene.leaders() == [first]
        began = scene.loop.time()
        first.kill()
        assert (first.alive, first.leads(), first.epoch()) == (False, False, 0)
        second = await scene.leader(first)
        assert 1.0 < scene.loop.time() - began < 4.0, "the lease had to run out"
        assert second.epoch() == 2
        first.start()
        await asyncio.sleep(5.0)
        assert scene.leaders() == [second]
        assert not scene.crashes

    assert play(story)[1] == play(story)[1]


def test_a_stopped_leader_hands_over_at_once() -> None:
    async def story(scene: Scene) -> None:
        first = await scene.leader()
        await asyncio.sleep(3.0)
        await first.stop()
        began = scene.loop.time()
        await scene.leader(first)
        assert scene.loop.time() - began < 0.2
        assert not first.alive
        assert not scene.crashes

    play(story)


def test_a_paused_leader_believes_until_it_goes_on() -> None:
    async def story(scene: Scene) -> None:
        first = await scene.leader()
        first.pause()
        second = await scene.leader(first)
        assert scene.leaders() in ([first, second], [second, first])
        first.resume()
        await asyncio.sleep(1.0)
        assert scene.leaders() == [second]

    play(story)


async def nothing(api: Api) -> str:
    return api.name


def test_a_request_is_answered_refused_or_broken_off() -> None:
    async def story(scene: Scene) -> None:
        one = scene.all[0]
        with pytest.raises(Unavailable, match="refused"):
            await one.ask(nothing)
        await scene.leader()
        await asyncio.sleep(0.1)
        assert await one.ask(nothing) == "c1"
        one.pause()
        asked = asyncio.ensure_future(one.ask(nothing))
        await asyncio.sleep(5.0)
        assert not asked.done()
        one.resume()
        assert await asked == "c1"
        one.pause()
        asked = asyncio.ensure_future(one.ask(nothing))
        await asyncio.sleep(1.0)
        one.kill()
        with pytest.raises(Gone):
            await asked

    play(story)


def test_a_fault_of_a_handler_is_a_crash() -> None:
    async def broken(api: Api) -> None:
        raise ZeroDivisionError

    async def story(scene: Scene) -> None:
        await scene.leader()
        await asyncio.sleep(0.1)
        with pytest.raises(Gone):
            await scene.all[1].ask(broken)
        assert [(name, type(error)) for name, error in scene.crashes] == [("c2", ZeroDivisionError)]
        assert not scene.all[1].alive

    play(story)


async def enter(api: Api, node: str, before: tuple[NodeDoc | None, int] = (None, 0)) -> NodeDoc:
    return await cluster.enter(api, JoinBody(token="", csr="", name=node), "worker", "01", before)


async def give(scene: Scene, kind: str, name: str, document: object) -> None:
    await scene.store.txn([], [Put(key(kind, name), codec.encode(document))])


def test_calls_to_agents_go_where_the_world_says() -> None:
    async def ask(controller: str, node: str, method: str, request: Any) -> Any:
        asked.append((controller, node, method, request.name))
        if node == "n2":
            await asyncio.sleep(1000.0)
        raise NotFound("no such volume")

    async def remove(api: Api) -> Any:
        return await call(volumes.remove_volume, None, {"force": False}, name="data")(api)

    asked: list[tuple[str, str, str, str]] = []

    async def story(scene: Scene) -> None:
        for one in scene.all:
            one.ask_agent = ask
            one.kill()
            one.start()
        await scene.leader()
        await asyncio.sleep(5.0)
        for node in ("n1", "n2"):
            await scene.all[0].ask(partial(enter, node=node))
            status = StatusDoc(node, NodeInfo("n:1"), volumes=("data",))
            await give(scene, "status", node, status)
            await give(scene, "health", node, NodeHealthDoc(node, "ready"))
        await asyncio.sleep(0.1)
        with pytest.raises(Unavailable, match="n2"):
            await scene.all[0].ask(remove)
        assert asked == [("c1", "n1", "RemoveVolume", "data"), ("c1", "n2", "RemoveVolume", "data")]

    play(story)


def test_a_name_that_lives_is_not_given_again() -> None:
    async def story(scene: Scene) -> None:
        leader = await scene.leader()
        await leader.ask(partial(enter, node="n1"))
        before, revision = await leader.ask(lambda api: cluster.joinable(api, "n1"))
        assert before is not None
        assert before.serial == "01"
        again = await leader.ask(partial(enter, node="n1", before=(before, revision)))
        assert again.id != before.id
        await give(scene, "health", "n1", NodeHealthDoc("n1", "ready"))
        await asyncio.sleep(0.1)
        with pytest.raises(Conflict, match="ready"):
            await leader.ask(lambda api: cluster.joinable(api, "n1"))

    play(story)


def test_a_controller_that_hears_late_does_not_take_its_old_picture_for_the_truth() -> None:
    """A stack is applied again after it was scaled elsewhere: "unchanged" would be a lost update."""

    async def story(scene: Scene) -> None:
        await scene.leader()
        await asyncio.sleep(1.0)
        first, second, _ = scene.all
        project = wishes.first(3)
        apply = call(stacks.apply, project, {"prune": True}, stack="base")
        await first.ask(apply)
        await asyncio.sleep(1.0)
        second.faults.watch_late_s = 3.0
        await first.ask(call(services.scale, ScaleBody(replicas=9), name="base_web"))
        assert [row["action"] for row in (await second.ask(apply))["changes"]] == ["none", "scale"]
        before = scene.store.revision
        assert [row["action"] for row in (await first.ask(apply))["changes"]] == ["none", "none"]
        entry = await scene.store.get(key("services", "base_web"))
        assert entry is not None
        assert codec.decode(ServiceDoc, entry.value).scale == 3
        assert entry.mod_revision <= before

    play(story)
