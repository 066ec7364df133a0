"""sim/people.py and what it is made of: files that are valid, deeds that end, promises that are remembered."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from controller.api.context import Api
from controller.api.stacks import read_stack
from controller.decide.stacks import diff_stack
from controller.decide.types import Settings, View
from controller.store.memory import MemoryStore
from model import codec
from model.documents import NetworkDoc, NodeDoc, NodeInfo, ServiceDoc, key, prefix
from model.errors import BadInput, Conflict, NotFound, StoreUnknown, Unavailable
from model.spec import ContainerSpec, ServiceSpec
from model.store_port import Put
from sim import wishes
from sim.asking import Asker, Deed, Outcome
from sim.chance import Chance
from sim.controller import SimController
from sim.loop import VirtualLoop
from sim.people import People
from sim.trace import Trace
from sim.wanted import GONE, Wanted, wanted_by
from sim.wire import Wire

BOX = ServiceSpec("box", ContainerSpec("demo/web:1"), single=True)


@pytest.mark.parametrize("nodes", [1, 3, 20, 1000])
def test_every_file_and_every_edit_of_it_can_be_applied(nodes: int) -> None:
    rng, applied = random.Random(nodes), 0
    for _ in range(20):
        project = wishes.project(rng, "s1", nodes)
        for _ in range(4):
            stack = read_stack("s1", project)
            with suppress(Conflict):  # two services drew one port
                assert diff_stack(View(), stack, lambda: "id", 0, True, Settings()).services
                applied += 1
            project = wishes.edited(rng, project, nodes)
    assert applied > 70


def test_a_promise_that_is_not_kept_is_told() -> None:
    wanted = Wanted()
    wanted.services["box"] = wanted_by(BOX)
    wanted.networks["net"] = None
    wanted.nodes |= {"n1": "drain", "n2": GONE, "n3": "active"}
    document = ServiceDoc("id", BOX, 1)
    nodes = {"n1": NodeDoc("n1", "1", availability="drain"), "n3": NodeDoc("n3", "3")}
    assert wanted.unmet({"box": document}, ["net"], nodes) == []
    lost = wanted.unmet({"box": replace(document, stopped=True)}, [], {**nodes, "n2": NodeDoc("n2", "2")})
    assert [about for about, _ in lost] == ["service/box", "network/net", "node/n2"]
    assert wanted.unmet({}, ["net", "other"], nodes)[0] == ("service/box", "service box was accepted and is not there")
    assert wanted.unmet({"box": document}, ["net", "other"], nodes)[0][0] == "network/other"
    wanted.unsure = {"service/box": None, "network/other": None}
    assert wanted.unmet({}, ["net", "other"], nodes) == []


class Computer:
    def info(self) -> NodeInfo:
        return NodeInfo("10.0.0.1:7443")


class Stranger:
    """A machine whose agent does nothing."""

    def __init__(self) -> None:
        self.removed, self.machine, self.ids = False, Computer(), list[tuple[str, str]]()

    def rejoin(self, serial: str, node_id: str) -> None:
        self.removed = False
        self.ids.append((serial, node_id))


class Town:
    """Three controllers, and nodes that are documents only."""

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        chance = Chance(seed)
        self.trace = Trace(loop)
        self.store = MemoryStore(now=loop.time)
        self.crashes: list[BaseException] = []
        wire = Wire(loop, chance, self.trace)
        made = [SimController(f"c{n}", self.store, loop, wire, chance, self.trace, Settings(), 10.0) for n in (1, 2, 3)]
        self.controllers = {one.name: one for one in made}
        self.nodes = {f"n{n}": Stranger() for n in range(1, 7)}
        self.people = People(self, chance.stream("people"))
        for one in made:
            one.crashed = lambda name, error: self.crashes.append(error)

    def volume_removed(self, name: str) -> None:
        """Nobody looks here."""

    async def begin(self) -> None:
        for name in self.nodes:
            await self.store.txn([], [Put(key("nodes", name), codec.encode(NodeDoc(name, "id")))])
        for one in self.controllers.values():
            one.start()
        await asyncio.sleep(5.0)

    async def documents(self, kind: str, cls: type) -> list[Any]:
        return [codec.decode(cls, entry.value) for entry in (await self.store.list(prefix(kind))).entries]

    async def unmet(self) -> list[tuple[str, str]]:
        services = {row.spec.name: row for row in await self.documents("services", ServiceDoc)}
        loose = [row.spec.name for row in await self.documents("networks", NetworkDoc) if not row.spec.stack]
        return self.people.wanted.unmet(services, loose, {row.name: row for row in await self.documents("nodes", NodeDoc)})


def live(seed: int, deeds: int, rates: float) -> tuple[Town, str]:
    """So many times somebody acts; with rates the store loses answers and finds conflicts."""
    loop = VirtualLoop()

    async def main() -> tuple[Town, str]:
        town = Town(loop, seed)
        await town.begin()
        for number in range(deeds):
            for one in town.controllers.values():
                one.faults.unknown = one.faults.conflict = rates
                one.faults.slow_s = rates
            if rates and number % 7 == 0:
                town.controllers["c1"].kill()
                town.controllers["c1"].start()
            await town.people.act()
            for stranger in town.nodes.values():
                stranger.removed = True
            await asyncio.sleep(0.5)
        assert await town.unmet() == []
        return town, town.trace.sha256()

    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


@pytest.mark.parametrize("rates", [0.0, 0.2])
def test_people_get_things_done_and_what_they_were_told_is_so(rates: float) -> None:
    town, digest = live(1, 25, rates)
    assert town.people.asker.outcomes[Outcome.ACCEPTED] > 15
    assert town.people.wanted.services
    assert not town.crashes
    assert digest == live(1, 25, rates)[1]


def test_a_node_that_was_removed_joins_again_with_another_certificate() -> None:
    town, _ = live(5, 60, 0.0)
    ids = [row for stranger in town.nodes.values() for row in stranger.ids]
    assert ids
    assert len(set(ids)) == len(ids)


class Answers:
    """One controller's part of what is asked: it does what each question is."""

    def __init__(self, *what: Any) -> None:
        self.what, self.answers = list(what), True

    async def ask(self, work: Any) -> Any:
        found = self.what.pop(0) if self.what else await work(None)
        if isinstance(found, float):
            await asyncio.sleep(found)
        if isinstance(found, Exception):
            raise found
        return found


@pytest.mark.parametrize(
    ("answers", "removes", "outcome", "told"),
    [
        (["yes"], False, Outcome.ACCEPTED, ["yes"]),
        ([BadInput("no")], False, Outcome.REFUSED, []),
        ([Conflict("a port is taken")], False, Outcome.REFUSED, []),
        ([NotFound("no such service")], False, Outcome.REFUSED, []),
        ([NotFound("no such service")], True, Outcome.UNKNOWN, []),
        ([Unavailable("refused"), "yes"], False, Outcome.ACCEPTED, ["yes"]),
        ([Conflict("it changed: look again"), "yes"], False, Outcome.ACCEPTED, ["yes"]),
        ([StoreUnknown("lost"), Conflict("exists already"), *[StoreUnknown("lost")] * 3], False, Outcome.UNKNOWN, []),
        ([*[StoreUnknown("lost")] * 5], False, Outcome.UNKNOWN, []),
        ([30.0, "yes"], False, Outcome.ACCEPTED, ["yes"]),
    ],
)
def test_how_a_deed_ends(answers: list[Any], removes: bool, outcome: Outcome, told: list[str]) -> None:
    async def never(api: Api) -> None:
        raise AssertionError

    async def story() -> tuple[Outcome, float]:
        heard: list[Any] = []
        one: Any = Answers(*answers)
        asker = Asker({"c1": one}, random.Random(1))
        found, _ = await asker.do(Deed("service/box", "", never, heard.append, never, removes=removes))
        assert heard == told
        assert not one.what, "it was asked as often as it takes"
        return found, asyncio.get_running_loop().time()

    loop = VirtualLoop()
    try:
        found, took_s = loop.run_until_complete(story())
    finally:
        loop.close()
    assert found is outcome
    if answers[0] == 30.0:
        assert took_s > 30.0, "another was asked meanwhile, and the first one waited for"
