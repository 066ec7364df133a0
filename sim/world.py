"""The whole simulated cluster: controllers, nodes, store, wire, people, faults and checkers on one virtual loop.

Rules: `run` once. Faults begin and end, and people act, until `scenario.faults_until_s`; then everything must be as it should
within `scenario.bound_s`, and the run ends as soon as it is, or with the last of its minutes (`whole`). What the world does to
processes runs in the world's own context.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from controller.decide.types import Settings
from controller.store.memory import MemoryStore
from model import codec
from model.documents import NodeDoc, StatusDoc, key, prefix
from model.store_port import Op, Put
from sim.callers import Callers
from sim.calls import AgentCalls
from sim.chance import Chance
from sim.checks.facts import Box
from sim.checks.kept import kept
from sim.checks.scaling import high, unserved
from sim.checks.settled import End, Missing, not_up, unfinished
from sim.checks.verdicts import Violation
from sim.checks.watch import Checks
from sim.clock import EPOCH_S, SimClock
from sim.controller import SimController
from sim.faults import Fault
from sim.inject import Injector
from sim.load import Flow, Load, SimPrometheus
from sim.loop import VirtualLoop
from sim.machine import Machine
from sim.node import SimNode
from sim.people import People
from sim.scenario import LARGE, Scenario
from sim.story import story
from sim.trace import Trace
from sim.wire import Wire

SERVING: Final = 50
"""So many machines of a large cluster tell where their agent listens: each of them, every node is told."""
UP_WITHIN_S: Final = 60.0
LOOK_S: Final = 1.0
LOOK_S_MAX: Final = 8.0
SLICE_IDLE_MS: Final = 45_000
"""Shorter than in a real cluster, so that slices go from node to node within minutes."""
STILL_S: Final = 3.0
"""What is finished must still be finished so much later."""
SIZES: Final = ((2.0, 4 << 30), (4.0, 8 << 30), (8.0, 16 << 30))


class World:
    """`run()`; then `checks.violations`, `trace`, `injected`."""

    def __init__(self, scenario: Scenario, faults: Sequence[Fault]) -> None:
        self.scenario = scenario
        self.faults = tuple(faults)
        self.injected = 0
        self._broken: Exception | None = None
        self._decoded: dict[tuple[str, int], StatusDoc] = {}
        """By key and mod_revision, of the last look."""
        self.loop = VirtualLoop()
        self.chance = Chance(scenario.seed)
        self.trace = Trace(self.loop)
        self.wire = Wire(self.loop, self.chance, self.trace)
        self.wire.failed = self._session_failed
        self.store = MemoryStore(now=self.loop.time)
        self.clocks: dict[str, SimClock] = {}
        self.injector = Injector(self)
        self.checks = Checks(self.loop.time, self.injector.trouble.calm_since_s)
        self.checks.ground.verdicts.on_first = self._tell_story
        self.told: tuple[str, ...] = ()
        """The story of the first violation, as it was when that happened."""
        self.store.on_write.append(self._wrote)
        settings = Settings(node_timeout_ms=round(scenario.silence_s * 1000), slice_idle_ms=SLICE_IDLE_MS)
        self.load = Load(
            self.loop, self.chance, scenario.node_names(), self.checks.facts.docs["services"], scenario.load_until_s
        )
        self.prometheus = SimPrometheus(self.load)
        self.controllers = {name: self._controller(name, settings) for name in scenario.controller_names()}
        self.nodes = {name: self._node(name) for name in scenario.node_names()}
        calls = AgentCalls(self.nodes, self.wire.passes, self.chance.stream("calls"))
        for controller in self.controllers.values():
            controller.ask_agent = calls
        self.callers = Callers(self.load, self.checks.facts.docs["services"], self.nodes)
        self.checks.load_is(Known(self))
        self.people = People(self, self.chance.stream("people"), scenario.loaded)

    # ---- made

    def _controller(self, name: str, settings: Settings) -> SimController:
        made = SimController(
            name, self.store, self.loop, self.wire, self.chance, self.trace, settings, self.scenario.silence_s,
            self.prometheus,
        )
        made.crashed = lambda place, error: self._crashed(f"controller/{place}", error)
        return made

    def _node(self, name: str) -> SimNode:
        self.clocks[name] = clock = SimClock(self.loop)
        rng = self.chance.stream("machines")
        cpus, memory_bytes = SIZES[rng.randrange(len(SIZES))]
        self.checks.node_joined(name, cpus, memory_bytes)
        number = len(self.clocks)
        address = f"10.{250 + number // 60_000}.{number // 250 % 250}.{number % 250 + 1}"
        machine = Machine(name, self.loop, clock, self.chance, self.trace, self, cpus, memory_bytes, address)
        machine.serves = number <= (LARGE if self.scenario.nodes <= LARGE else SERVING)
        machine.load = self.load if self.scenario.loaded else None
        where = [controller.address for controller in self.controllers.values()]
        made = SimNode(
            name, machine, self.loop, self.wire, clock, self.chance, self.trace, where, _serial(name), _id(name)
        )
        made.crashed = lambda place, error: self._crashed(f"node/{place}", error)
        self.checks.ground.believes[name] = lambda network, address: machine.tables.believes(network, address)
        return made

    # ---- told

    def _wrote(self, by: str, ops: Sequence[Op], revision: int) -> None:
        with self._watched():
            self.checks.wrote(by, ops, revision)

    def container_started(self, node: str, box: Box) -> None:
        with self._watched():
            self.checks.container_started(node, box)

    def container_rewired(self, node: str, box: Box) -> None:
        with self._watched():
            self.checks.container_rewired(node, box)

    def container_ended(self, node: str, box: Box, code: int | None, why: str) -> None:
        with self._watched():
            self.checks.container_ended(node, box, code, why)

    def _tell_story(self, first: Violation) -> None:
        self.told = tuple(story(self.trace, first.about))

    def volume_removed(self, name: str) -> None:
        """Somebody was told so."""
        members = [node for name, node in self.nodes.items() if name in self.checks.facts.docs["nodes"] and not node.removed]
        copies = [node.name for node in members if node.machine.volumes.get(name) is not None]
        with self._watched():
            self.checks.volume_removed(name, copies)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """A checker that fails must not look like a store or a machine that does: it ends the run, later."""
        try:
            yield
        except Exception as error:
            self._broken = self._broken or error

    def _session_failed(self, controller: str, error: BaseException) -> None:
        if not self.loop.over:
            self.checks.bad("session failed", f"controller/{controller}", f"{type(error).__name__}: {error}")

    def _crashed(self, about: str, error: BaseException) -> None:
        self.checks.bad("crashed", about, f"{type(error).__name__}: {error}")

    # ---- running

    def run(self) -> None:
        """From nothing to the end of the quiet time."""
        watch = LogWatch(self)
        logging.getLogger().addHandler(watch)
        try:
            self.loop.run_until_complete(self._live())
        finally:
            logging.getLogger().removeHandler(watch)
            self.loop.close()
        if self._broken is not None:
            raise self._broken

    async def _live(self) -> None:
        self.loop.starts()
        await self._boot()
        self.loop.started()
        scenario = self.scenario
        for fault in self.faults:
            self.loop.call_at(fault.at_s, self._begin, fault, context=self.loop.world)
        calling = asyncio.ensure_future(self.callers.run()) if scenario.loaded else None
        acting = asyncio.ensure_future(self._people(scenario.faults_until_s))
        await asyncio.sleep(max(0.0, scenario.faults_until_s - self.loop.time()))
        await acting
        self.callers.insist()
        await self._settle()
        if scenario.whole and not self.checks.violations:
            await self._stay(scenario.total_s)
        if calling is not None:
            calling.cancel()

    async def _boot(self) -> None:
        puts = [
            Put(key("nodes", name), codec.encode(NodeDoc(name, _id(name), _serial(name), joined_ms=round(EPOCH_S * 1000))))
            for name in self.nodes
        ]
        for start in range(0, len(puts), 100):
            await self.store.txn([], puts[start : start + 100])
        for controller in self.controllers.values():
            controller.start()
        for node in self.nodes.values():
            node.start()
        until_s = self.loop.time() + UP_WITHIN_S
        while not_up(self.checks.facts):
            if self.loop.time() > until_s:
                self.checks.bad("not up", "controller/*", f"no leader or not all nodes ready within {UP_WITHIN_S:g} s")
                return
            await asyncio.sleep(LOOK_S)

    def _begin(self, fault: Fault) -> None:
        self.injected += 1
        self.injector.begin(fault)
        if fault.for_s:
            self.loop.call_later(fault.for_s, self.injector.end, fault, context=self.loop.world)

    async def _people(self, until_s: float) -> None:
        rng = self.chance.stream("people's pace")
        pace_s = 5.0
        while self.loop.time() < until_s:
            await self.people.act()
            await asyncio.sleep(rng.expovariate(1 / pace_s))

    # ---- the end

    async def _settle(self) -> None:
        """Until nothing is missing, and still is not a little later; what is missing when the time is over is a violation."""
        began_s, look_s = self.loop.time(), LOOK_S
        missing: list[Missing] = []
        self._retire()
        while self.loop.time() - began_s < self.scenario.bound_s:
            missing = await self._missing()
            if not missing:
                await asyncio.sleep(STILL_S)
                if not (missing := await self._missing()):
                    self.trace.add("settled", "world", f"{self.loop.time() - began_s:.1f} s after the last fault")
                    return
            await asyncio.sleep(look_s)
            look_s = min(LOOK_S_MAX, look_s * 1.5)
        for row in missing:
            self.checks.bad(row.rule, row.about, f"{self.scenario.bound_s:g} s after the last fault: {row.text}")

    async def _stay(self, until_s: float) -> None:
        """What is well stays well when nothing happens any more."""
        await asyncio.sleep(max(0.0, until_s - self.loop.time()))
        for row in await self._missing():
            self.checks.bad(row.rule, row.about, f"at the end, and it had been well before: {row.text}")

    def _retire(self) -> None:
        """Of a node that was removed while it was away nobody tells its agent: it is not let in. That is its owner's to end."""
        for name, node in self.nodes.items():
            lives = node.runner.core.lives.values() if node.runner is not None else ()
            told = any(life.goal == "remove" for life in lives)
            if name not in self.checks.facts.docs["nodes"] and not node.removed and not told:
                node.retire()

    async def _missing(self) -> list[Missing]:
        docs = self.checks.facts.docs
        loose = [name for name, document in docs["networks"].items() if not document.spec.stack]
        broken = self.people.wanted.unmet(docs["services"], loose, docs["nodes"])
        now_s, facts = self.loop.time(), self.checks.facts
        scaling = [*unserved(self.callers.waiting, self.scenario.faults_until_s, facts, now_s)]
        scaling += high(facts, now_s) if self.scenario.loaded else ()
        return [*(Missing("lost update", about, text) for about, text in broken), *scaling, *unfinished(await self._end())]

    async def _end(self) -> End:
        boxes = {name: node.machine.containers() for name, node in self.nodes.items()}
        sends = {
            name: [(row.network, row.address, row.service_id) for rows in node.machine.tables.sends.values() for row in rows]
            for name, node in self.nodes.items() if not node.removed
        }  # fmt: skip
        leftovers = {name: kept(node) for name, node in self.nodes.items() if not node.removed}
        volumes = {name: self._volumes(node) for name, node in self.nodes.items() if not node.removed}
        return End(self.checks.facts, boxes, await self._statuses(), len(self.store.leases()), sends, leftovers, volumes)

    def _volumes(self, node: SimNode) -> list[str]:
        """With a name, and of this cluster."""
        places = self.checks.facts.docs["places"]
        here = {name for name in node.older_volumes if name in places and node.name in places[name].nodes}
        names = [volume.name for volume in node.machine.volumes.all() if not volume.anonymous]
        return [name for name in names if name not in node.older_volumes or name in here]

    async def _statuses(self) -> dict[str, StatusDoc]:
        begin = prefix("status")
        entries = (await self.store.list(begin)).entries
        known = self._decoded  # most are as they were at the last look
        found = {
            entry.key: known.get((entry.key, entry.mod_revision)) or codec.decode(StatusDoc, entry.value) for entry in entries
        }
        self._decoded = {(entry.key, entry.mod_revision): found[entry.key] for entry in entries}
        return {name[len(begin) :]: document for name, document in found.items()}


class Known:
    """What checkers ask about the load: sim.checks.scaling.Demand."""

    def __init__(self, world: World) -> None:
        self._world = world

    def flows(self, service: str) -> Sequence[Flow]:
        return tuple(self._world.load.flows.get(service, ()))

    def peak(self, service: str, since_s: float, until_s: float) -> float:
        return self._world.load.peak(service, since_s, until_s)

    def sensors_failed_s(self, node: str) -> float:
        sensors = self._world.nodes[node].machine.sensors
        return self._world.loop.time() if sensors.fail else sensors.troubled_s

    def missing_since_s(self, node: str) -> float | None:
        since_s = self._world.nodes[node].machine.sensors.missing_since_s
        return since_s if since_s >= 0 else None


def _id(node: str) -> str:
    return f"id-{node}"


def _serial(node: str) -> str:
    return f"serial-{node}"


class LogWatch(logging.Handler):
    """An error with a trace in a daemon's log is a fault of ours, wherever it was caught."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            text = f"{record.name}: {record.getMessage()}: {type(error).__name__}: {error}"
            self._world.checks.bad("error logged", f"log/{record.name}", text.replace("\n", " ")[:500])
