"""A controller of the simulation: the parts of the real one on a process, without servers and files.

Rules: what a machine keeps (its name, its controller id, its clock, its way to the store) outlives the process. Requests to its
API are the handlers' own code, run in its process: they stop and die with it.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar, cast

from controller.agents import Agents
from controller.api.context import Api
from controller.decide.types import Settings
from controller.loops.picture import Picture
from controller.parts import Parts
from controller.pki import Pki
from controller.prometheus.memory import MemoryPrometheus
from controller.prometheus.port import Prometheus
from controller.store.memory import MemoryStore
from controller.wiring import register
from model.documents import ControllerDoc, LeaderDoc
from model.errors import ShoalError, Unavailable
from sim.chance import Chance
from sim.clock import SimClock, SimRandom
from sim.loop import VirtualLoop
from sim.process import Process, answered
from sim.store import StoreFaults, StoreSide
from sim.trace import Trace
from sim.wire import Wire

T = TypeVar("T")
PORT: Final = 7777
NO_PKI: Final = cast(Pki, None)
"""Nobody asks a simulated API for tokens or certificates: nodes join by `enter`."""
AskAgent = Callable[[str, str, str, Any], Awaitable[Any]]
"""(controller, node, method, request) -> the agent's answer. Raises ShoalError."""


class Gone(ShoalError):
    """The connection broke before there was an answer: it may have happened."""

    code = "gone"


class SimController:
    """`start()` and `kill()` as often as wanted. `crashed(name, error)` is told when it dies by itself.

    `host`: an address, since agents would look up a name; `address`: where they dial. `faults`: of its way to the store;
    `clock`: of its machine. `ask_agent`: how its calls to agents get there.
    """

    def __init__(
        self,
        name: str,
        store: MemoryStore,
        loop: VirtualLoop,
        wire: Wire,
        chance: Chance,
        trace: Trace,
        settings: Settings,
        node_timeout_s: float,
        prometheus: Prometheus | None = None,
    ) -> None:
        self.name = name
        self.host = f"10.249.{zlib.crc32(name.encode()) % 250}.{zlib.crc32(name.encode()) // 250 % 250 + 1}"
        self.address = f"{self.host}:{PORT}"
        self.clock = SimClock(loop)
        self.faults = StoreFaults()
        self.crashed: Callable[[str, BaseException], None] = lambda name, error: None
        self.ask_agent: AskAgent = _no_agents
        self.process: Process | None = None
        self.side: StoreSide | None = None
        self.parts: Parts | None = None
        self.api: Api | None = None
        self._store = store
        self._loop = loop
        self._wire = wire
        self._chance = chance
        self._trace = trace
        self._prometheus = prometheus or MemoryPrometheus()
        self._settings = replace(settings, node_timeout_ms=int(node_timeout_s * 1000))
        self._random = SimRandom(chance.stream(f"controller/{name}"))
        self._id = SimRandom(chance.stream(f"controller/{name}/id")).token_hex(8)
        self._main: asyncio.Task[None] | None = None

    # ---- the process

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.alive

    @property
    def answers(self) -> bool:
        """Its API listens, though a paused one says nothing."""
        return self.alive and self.api is not None

    def start(self) -> None:
        """A new process; nothing happens when there is one."""
        if self.alive:
            return
        process = self.process = Process(self._loop, self.name)
        process.crashed = partial(self._crashed, process)
        process.on_death.append(self._died)
        self.side = StoreSide(
            self._store, self.name, process, self._loop, self._chance.stream(f"store/{self.name}"), self._trace, self.faults
        )
        self._trace.add("process", f"controller/{self.name}", "starts")
        self._main = process.spawn(self._run(process, self.side), "main")

    async def stop(self) -> None:
        """As by SIGTERM: the leader's key is released first. A paused one does not hear of it and is killed."""
        if self._main is None or self.process is None:
            return
        if self.process.alive and not self.process.paused:
            self._main.cancel()
            await asyncio.wait({self._main}, timeout=5.0)
        self.kill()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    def pause(self) -> None:
        if self.process is not None:
            self._trace.add("process", f"controller/{self.name}", "stands still")
            self.process.pause()

    def resume(self) -> None:
        if self.process is not None:
            self._trace.add("process", f"controller/{self.name}", "goes on")
            self.process.resume()

    def _died(self) -> None:
        self._trace.add("process", f"controller/{self.name}", "is dead")
        self.api = None

    def _crashed(self, process: Process, error: BaseException) -> None:
        self._trace.add("process", f"controller/{self.name}", f"crashed: {type(error).__name__}: {error}")
        self.crashed(process.name, error)

    # ---- who leads

    def leads(self) -> bool:
        """Whether it believes so: more than one may, of which one can write."""
        return self.epoch() > 0

    def epoch(self) -> int:
        """Of its reign; 0: it has none."""
        reign = self.parts.leadership.reign if self.alive and self.parts is not None else None
        return 0 if reign is None else reign.epoch

    # ---- what runs

    def _parts(self, side: StoreSide) -> Parts:
        return Parts(
            side, self.clock, self._random, self._settings, self._prometheus, prometheus_url="http://prometheus"
        )

    async def _run(self, process: Process, side: StoreSide) -> None:
        """controller/wiring.py without servers and files: the same parts, in the same order."""
        with closing(self._parts(side)) as parts:
            self.parts = parts
            parts.dispatch.address = self.address
            agents = SimAgents(parts.picture, partial(self.ask_agent, self.name))
            api_url = f"https://{self.host}:7443"
            api = Api(
                side, parts.picture, parts.mirror.wait_for, self.clock, self._random, NO_PKI, agents, parts.dispatch,
                self._settings, self.name, api_url, self.address, parts.gone, parts.samples, parts.measuring,
            )  # fmt: skip
            me = LeaderDoc(self.name, 0, api_url, self.address, id=self._id)
            self._wire.listen(self.address, self.name, process, parts.dispatch.session)
            async with asyncio.TaskGroup() as group:
                mirroring = group.create_task(parts.mirror.run())
                await parts.mirror.wait_for(1)
                self.api = api
                electing = group.create_task(parts.election(me).run(parts.leadership.lead))
                try:
                    await register(side, ControllerDoc(me.id, me.controller, me.api, me.dispatch))
                    await asyncio.Event().wait()
                finally:
                    electing.cancel()
                    await asyncio.wait({electing})
                    mirroring.cancel()

    async def ask(self, work: Callable[[Api], Awaitable[T]]) -> T:
        """What a request is answered: `work` runs in its process. Raises what `work` raises, Unavailable when nothing listens,
        Gone when the process dies meanwhile. An error that is no ShoalError is a fault of ours, and crashes it."""
        process, api = self.process, self.api
        if process is None or api is None or not process.alive:
            raise Unavailable(f"controller {self.name} cannot be reached (connection refused)")
        reply: asyncio.Future[T] = self._loop.create_future()

        def died() -> None:
            if not reply.done():
                reply.set_exception(Gone(f"controller {self.name}: the connection broke"))

        process.on_death.append(died)
        process.spawn(answered(work(api), reply), "request")
        try:
            return await reply
        finally:
            process.on_death.remove(died)


async def _no_agents(controller: str, node: str, method: str, request: Any) -> Any:
    raise Unavailable(f"node {node} cannot be reached from {controller}")


class SimAgents(Agents):
    """The real calls to agents, over channels that are a function."""

    def __init__(self, picture: Picture, ask: Callable[[str, str, Any], Awaitable[Any]]) -> None:
        self._picture = picture  # not the base's: that one needs certificates
        self._ask = ask

    async def _channel(self, node: str, address: str) -> Any:
        return AgentChannel(partial(self._ask, node), node)

    async def close(self) -> None:
        """Nothing is open."""


class AgentChannel:
    """What a gRPC stub needs of a channel."""

    def __init__(self, ask: Callable[[str, Any], Awaitable[Any]], node: str) -> None:
        self._ask = ask
        self._node = node

    def unary_unary(self, path: str, **options: Any) -> Callable[..., Awaitable[Any]]:
        method = path.rpartition("/")[2]

        async def call(request: Any, timeout: float) -> Any:
            try:
                async with asyncio.timeout(timeout):
                    return await self._ask(method, request)
            except TimeoutError:
                raise Unavailable(f"node {self._node} cannot be reached: no answer within {timeout:g} s") from None

        return call

    def unary_stream(self, path: str, **options: Any) -> Callable[..., Any]:
        return partial(_not_simulated, path)

    stream_stream = stream_unary = unary_stream


def _not_simulated(path: str, *arguments: Any) -> Any:
    raise Unavailable(f"{path} has no carrier in the simulation")
